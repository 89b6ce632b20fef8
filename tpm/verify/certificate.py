"""What does this certificate say?

One frozen value, whoever read it: `read_certificate` of tpm.verify.certificate_reader makes it. Nothing is
decided here: what is good enough is for tpm.verify.endorsement.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import HashAlgorithm

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
Attributes = tuple[tuple[str, str], ...]
"""Attributes of a distinguished name, in order: dotted OID and text."""
SignatureScheme = padding.PKCS1v15 | padding.PSS | ec.ECDSA

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"
ALTERNATIVE_NAME = "2.5.29.17"
PURPOSES = "2.5.29.37"
CERTIFICATE_POLICIES = "2.5.29.32"
USAGES = (
    "digitalSignature",
    "contentCommitment",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
)
"""The names of the key usage's bits, from the first on; two more say how a key may agree on others."""
TITLE_LIMIT = 200
_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
KEY_IDENTIFIER = "2.5.29.14"
ISSUER_KEY_IDENTIFIER = "2.5.29.35"


@dataclass(frozen=True, slots=True)
class IssuerSignature:
    """What an issuer signed and how. `hash_name` is "sha256"…; hash and scheme are None where unknown."""

    message: bytes
    value: bytes
    hash_name: str | None
    hash: HashAlgorithm | None
    scheme: SignatureScheme | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate (RFC 5280), with the bytes it came in. None means that the extension is absent.

    `subject` and `issuer` are DER and compared as bytes; `title` and `issuer_title` are the same for people.
    `usages` has the names of RFC 5280 ("keyCertSign"), `purposes` and `critical` have dotted OIDs.
    `alternative_names` holds the attributes of all directoryNames of the subject alternative name,
    `other_names` the dotted OID and the DER value of its otherNames.
    """

    raw: bytes
    sha256: str
    version: int
    serial: int
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
    policies: frozenset[str] | None
    critical: frozenset[str]
    subject_attributes: Attributes
    alternative_names: Attributes | None
    other_names: tuple[tuple[str, bytes], ...]
    key_identifier: bytes | None
    issuer_key_identifier: bytes | None
    signature: IssuerSignature


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


def printable(text: str) -> str:
    """The text with a question mark for what could harm a terminal or a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def key_name(key: PublicKey) -> str:
    """The kind of key in a word: "rsa2048", "p256"."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    return _CURVES.get(key.curve.name, key.curve.name)
