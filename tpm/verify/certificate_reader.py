"""What is written in these bytes: a certificate, and which?

`read_certificate` asks cryptography, whose parser is strict about DER. Makers whose genuine certificates it
refuses need a second reader, which returns the same value and is asked after the first has refused.
"""

import hashlib
import warnings
from contextlib import suppress
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tpm.errors import EvidenceError
from tpm.verify.certificate import TITLE_LIMIT, USAGES, Attributes, Certificate, IssuerSignature, printable
from tpm.verify.certificate_fallback import read_leniently
from tpm.verify.der import SEQUENCE, members, read_element, whole

Extension = TypeVar("Extension", bound=x509.ExtensionType)

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion,
               x509.UnsupportedGeneralNameType)  # fmt: skip
_EXPLICIT_VERSION = 0xA0
_STORED_CERTIFICATE = b"\x10\x01\x00"
_FULL_CERTIFICATE = b"\x10\x02"

# Genuine certificates have names longer than X.520 allows, and what others send is no news for our log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"tpm\.verify\.certificate")


def read_certificate(raw: bytes) -> Certificate:
    """The certificate in exactly these DER bytes; EvidenceError "ek_certificate_unreadable" otherwise."""
    try:
        return _read_with_cryptography(raw)
    except _UNREADABLE as refusal:
        first = refusal
    try:
        return read_leniently(raw)
    except (ValueError, UnsupportedAlgorithm) as second:
        detail = f"This certificate cannot be read: {first}; and without DER's strictest rules: {second}."
        raise EvidenceError("ek_certificate_unreadable", detail) from None


def certificate_in_nv(raw: bytes) -> bytes:
    """The certificate as it lies in an NV index: without the header in front and the padding behind it.

    The header is the TCG's for stored certificates (PC Client Implementation Specification 1.2, 7.4.5) or
    the size of a TPM2B; padding is a rest of 0x00 or of 0xFF alone, or the line break that a tool put there.
    Everything else stays as it is, for the reader to refuse.
    """
    body = _without_header(raw)
    try:
        certificate, end = read_element(body)
    except ValueError:
        return raw
    rest = body[end:]
    is_padding = rest in (bytes(len(rest)), b"\xff" * len(rest), b"\n", b"\r\n")
    return certificate.raw if is_padding else raw


def _without_header(raw: bytes) -> bytes:
    if raw.startswith(_STORED_CERTIFICATE):
        size = int.from_bytes(raw[3:5], "big")
        inside = raw[5 : 5 + size]
        # Some makers count the tag of the full certificate, and some leave it out.
        return inside.removeprefix(_FULL_CERTIFICATE) + raw[5 + size :]
    if raw[2:3] == bytes([SEQUENCE]):
        size = int.from_bytes(raw[:2], "big")
        with suppress(ValueError):
            certificate, _ = read_element(raw, 2)
            if len(certificate.raw) == size:
                return raw[2:]
    return raw


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
    policies = _extension(extensions, x509.CertificatePolicies)
    alternative = _extension(extensions, x509.SubjectAlternativeName)
    subject, issuer = found.subject, found.issuer
    return Certificate(
        raw=raw,
        sha256=hashlib.sha256(raw).hexdigest(),
        version=found.version.value + 1,
        serial=found.serial_number,
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
        policies=None if policies is None else frozenset(_policy(one) for one in policies),
        critical=frozenset(extension.oid.dotted_string for extension in extensions if extension.critical),
        subject_attributes=_attributes(subject),
        alternative_names=None if alternative is None else _directory_names(alternative),
        other_names=() if alternative is None else _other_names(alternative),
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
    granted = (
        usage.digital_signature,
        usage.content_commitment,
        usage.key_encipherment,
        usage.data_encipherment,
        usage.key_agreement,
        usage.key_cert_sign,
        usage.crl_sign,
    )
    return frozenset(name for name, given in zip(USAGES, granted, strict=True) if given)


def _policy(information: x509.PolicyInformation) -> str:
    return information.policy_identifier.dotted_string


def _directory_names(alternative: x509.SubjectAlternativeName) -> Attributes:
    names = alternative.get_values_for_type(x509.DirectoryName)
    return tuple(attribute for name in names for attribute in _attributes(name))


def _attributes(name: x509.Name) -> Attributes:
    # A BIT STRING (x500UniqueIdentifier) comes as bytes; nothing that we ask for is written so.
    return tuple((one.oid.dotted_string, one.value) for one in name if isinstance(one.value, str))


def _other_names(alternative: x509.SubjectAlternativeName) -> tuple[tuple[str, bytes], ...]:
    names = alternative.get_values_for_type(x509.OtherName)
    return tuple((one.type_id.dotted_string, one.value) for one in names)


def _title(name: x509.Name) -> str:
    return printable(name.rfc4514_string()[:TITLE_LIMIT])


def _check_one_signature_algorithm(raw: bytes) -> None:
    """The algorithm that is signed and the one beside the signature are the same (RFC 5280, 4.1.1.2)."""
    body, algorithm, _ = members(whole(raw, SEQUENCE))
    fields = [one for one in members(body) if one.tag != _EXPLICIT_VERSION]
    if fields[1].raw != algorithm.raw:
        raise ValueError("its two signature algorithms differ")


def as_certificate(certificate: x509.Certificate) -> Certificate:
    """The same value for a certificate that cryptography has read already."""
    return read_certificate(certificate.public_bytes(Encoding.DER))
