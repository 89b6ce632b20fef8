"""What does this certificate say?

One frozen value for every reader of certificates. `read_certificate` asks cryptography, whose parser is
strict about DER; makers whose genuine certificates it refuses need a second reader, which returns the same
value and is called at the one place that says so. Nothing is decided here: what is good enough is for
tpm.verify.endorsement.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from tpm.errors import EvidenceError

Extension = TypeVar("Extension", bound=x509.ExtensionType)
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
Attributes = tuple[tuple[str, str], ...]
"""Attributes of a distinguished name, in order: dotted OID and text."""

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"
ALTERNATIVE_NAME = "2.5.29.17"
PURPOSES = "2.5.29.37"
CERTIFICATE_POLICIES = "2.5.29.32"

_SUBJECT_LIMIT = 200
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion,
               x509.UnsupportedGeneralNameType)  # fmt: skip
_EXPLICIT_VERSION = 0xA0

# Genuine certificates have names longer than X.520 allows, and what others send is no news for our log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"tpm\.verify\.certificate")


@dataclass(frozen=True, slots=True)
class IssuerSignature:
    """What an issuer signed and how. `hash_name` is "sha256"…; hash and scheme are None where unknown."""

    message: bytes
    value: bytes
    hash_name: str | None
    hash: HashAlgorithm | None
    scheme: padding.PKCS1v15 | padding.PSS | ec.ECDSA | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate (RFC 5280), with the bytes it came in. None means that the extension is absent.

    `subject` and `issuer` are DER and compared as bytes; `title` and `issuer_title` are the same for people.
    `usages` has the names of RFC 5280 ("keyCertSign"), `purposes` and `critical` have dotted OIDs.
    `alternative_names` holds the attributes of all directoryNames of the subject alternative name.
    """

    raw: bytes
    sha256: str
    version: int
    title: str
    issuer_title: str
    subject: bytes
    issuer: bytes
    not_before: datetime
    not_after: datetime
    key: PublicKey
    is_ca: bool
    path_length: int | None
    usages: frozenset[str] | None
    purposes: frozenset[str] | None
    critical: frozenset[str]
    subject_attributes: Attributes
    alternative_names: Attributes | None
    key_identifier: bytes | None
    issuer_key_identifier: bytes | None
    signature: IssuerSignature


def read_certificate(raw: bytes) -> Certificate:
    """The certificate in exactly these DER bytes; EvidenceError "ek_certificate_unreadable" otherwise."""
    try:
        return _read_with_cryptography(raw)
    # A second reader, for genuine certificates that this parser refuses, is to be called here and nowhere
    # else.
    except _UNREADABLE as error:
        raise EvidenceError(
            "ek_certificate_unreadable", f"This certificate cannot be read: {error}."
        ) from None


def is_signed_by(certificate: Certificate, key: PublicKey) -> bool:
    """Does this key verify the certificate's signature? Names, dates and strength are not looked at."""
    signature = certificate.signature
    if signature.hash is None:
        return False
    try:
        match key, signature.scheme:
            case rsa.RSAPublicKey(), (padding.PKCS1v15() | padding.PSS()) as scheme:
                key.verify(signature.value, signature.message, scheme, signature.hash)
            case ec.EllipticCurvePublicKey(), ec.ECDSA() as scheme:
                key.verify(signature.value, signature.message, scheme)
            case _:
                return False
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def strip_padding(raw: bytes) -> bytes:
    """The certificate in an NV index that is larger than it: a rest of 0x00 or of 0xFF alone is dropped.

    Any other rest, and what is no DER at all, stays as it is, for the reader to refuse.
    """
    try:
        _, end = _element(raw, 0)
    except ValueError:
        return raw
    rest = raw[end:]
    return raw[:end] if rest in (bytes(len(rest)), b"\xff" * len(rest)) else raw


def _read_with_cryptography(raw: bytes) -> Certificate:
    found = x509.load_der_x509_certificate(raw)
    key = found.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ValueError(f"its key is neither RSA nor of an elliptic curve but a {type(key).__name__}")
    _check_one_signature_algorithm(raw)
    extensions = found.extensions
    constraints = _extension(extensions, x509.BasicConstraints)
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    key_identifier = _extension(extensions, x509.SubjectKeyIdentifier)
    issuer_key = _extension(extensions, x509.AuthorityKeyIdentifier)
    alternative = _extension(extensions, x509.SubjectAlternativeName)
    subject, issuer = found.subject, found.issuer
    return Certificate(
        raw=raw,
        sha256=hashlib.sha256(raw).hexdigest(),
        version=found.version.value + 1,
        title=_title(subject),
        issuer_title=_title(issuer),
        subject=subject.public_bytes(),
        issuer=issuer.public_bytes(),
        not_before=found.not_valid_before_utc,
        not_after=found.not_valid_after_utc,
        key=key,
        is_ca=constraints is not None and constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        usages=_usages(_extension(extensions, x509.KeyUsage)),
        purposes=None if purposes is None else frozenset(purpose.dotted_string for purpose in purposes),
        critical=frozenset(extension.oid.dotted_string for extension in extensions if extension.critical),
        subject_attributes=_attributes(subject),
        alternative_names=None if alternative is None else _directory_names(alternative),
        key_identifier=None if key_identifier is None else key_identifier.digest,
        issuer_key_identifier=None if issuer_key is None else issuer_key.key_identifier,
        signature=_issuer_signature(found),
    )


def _issuer_signature(found: x509.Certificate) -> IssuerSignature:
    scheme, hash_ = found.signature_algorithm_parameters, found.signature_hash_algorithm
    return IssuerSignature(
        message=found.tbs_certificate_bytes,
        value=found.signature,
        hash_name=None if hash_ is None else hash_.name,
        hash=hash_,
        scheme=scheme if isinstance(scheme, padding.PKCS1v15 | padding.PSS | ec.ECDSA) else None,
    )


def _extension(extensions: x509.Extensions, kind: type[Extension]) -> Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _usages(usage: x509.KeyUsage | None) -> frozenset[str] | None:
    if usage is None:
        return None
    granted = {
        "digitalSignature": usage.digital_signature,
        "contentCommitment": usage.content_commitment,
        "keyEncipherment": usage.key_encipherment,
        "dataEncipherment": usage.data_encipherment,
        "keyAgreement": usage.key_agreement,
        "keyCertSign": usage.key_cert_sign,
        "cRLSign": usage.crl_sign,
    }
    return frozenset(name for name, given in granted.items() if given)


def _directory_names(alternative: x509.SubjectAlternativeName) -> Attributes:
    names = alternative.get_values_for_type(x509.DirectoryName)
    return tuple(attribute for name in names for attribute in _attributes(name))


def _attributes(name: x509.Name) -> Attributes:
    # A BIT STRING (x500UniqueIdentifier) comes as bytes; nothing that we ask for is written so.
    return tuple((one.oid.dotted_string, one.value) for one in name if isinstance(one.value, str))


def _title(name: x509.Name) -> str:
    text = name.rfc4514_string()[:_SUBJECT_LIMIT]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _check_one_signature_algorithm(raw: bytes) -> None:
    """The algorithm that is signed and the one beside the signature are the same (RFC 5280, 4.1.1.2)."""
    start, _ = _element(raw, 0)
    signed, signed_end = _element(raw, start)
    _, outer_end = _element(raw, signed_end)
    if raw[signed] == _EXPLICIT_VERSION:
        _, signed = _element(raw, signed)
    _, serial_end = _element(raw, signed)
    _, inner_end = _element(raw, serial_end)
    if raw[serial_end:inner_end] != raw[signed_end:outer_end]:
        raise ValueError("its two signature algorithms differ")


def _element(raw: bytes, offset: int) -> tuple[int, int]:
    """Start of the content and end of the DER element at `offset`; ValueError when it does not fit."""
    if offset + 2 > len(raw):
        raise ValueError("an element is cut off")
    start, size = offset + 2, raw[offset + 1]
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 3:
            raise ValueError("an element has a length that no certificate needs")
        size = int.from_bytes(raw[start : start + octets], "big")
        start += octets
    if start + size > len(raw):
        raise ValueError("an element is longer than what holds it")
    return start, start + size


def as_certificate(certificate: x509.Certificate) -> Certificate:
    """The same value for a certificate that cryptography has read already."""
    return read_certificate(certificate.public_bytes(Encoding.DER))
