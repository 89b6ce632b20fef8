"""How is an X.509-SVID made?

A leaf certificate with exactly one URI SAN, the SPIFFE ID (X509-SVID standard, sections 2 to 5). The chain
is the leaf alone: its issuer is the root of the trust domain's bundle.
"""

import json
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestd.issue.authority import SKEW, Authority, at, key_usage
from attestd.issue.jwk import BoundKey
from attestd.issue.signer import Signer
from attestd.issue.statement import Basis, Statement
from tpm.errors import EvidenceError, PolicyError

BASIS_OID = x509.ObjectIdentifier("1.3.6.1.4.1.32473.2.1")
"""The extension that carries the basis: a UTF8String of JSON, never critical. Under the enterprise number
that RFC 5612 keeps for examples, so it can meet no registered extension; an identifier made of a UUID
(2.25.…) would be the other choice that needs no registrar, but parsers that keep an arc in 31 bits, Go's
among them, refuse the whole certificate for it."""

_EMPTY_NAME = x509.Name([])
# The same in every leaf, made once: the extension and whether it is critical.
_FIXED: tuple[tuple[x509.ExtensionType, bool], ...] = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (key_usage(signs_certificates=False), True),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
)


@dataclass(frozen=True, slots=True)
class X509Svid:
    """An issued certificate."""

    certificate_chain: str
    """PEM, leaf first."""
    serial: int
    expires_at: int
    """Milliseconds since the epoch."""


def issue(signer: Signer, statement: Statement, *, key: BoundKey, serial: int) -> X509Svid:
    """Sign the certificate. `serial` comes from `authority.serial_number`. EvidenceError `key_reuse` for
    the CA's own key; PolicyError `issuer_expired` or `trust_domain` when this CA may not say what
    `statement` says."""
    # 1. This authority may speak of this identity, at this time.
    authority = signer.authority
    if authority is None:
        raise PolicyError("no_authority", f"the key {signer.kid} is no X.509 authority")
    if authority.trust_domain != statement.trust_domain:
        raise PolicyError(
            "trust_domain", f"the CA of {authority.trust_domain} does not sign {statement.spiffe_id}"
        )
    if not authority.not_before <= statement.issued_at < statement.expires_at <= authority.not_after:
        raise PolicyError(
            "issuer_expired", "the certificate would outlive the CA's; add and activate a new x509 key"
        )

    # 2. Whoever asks does not name the CA's own key.
    if key.jwk == signer.jwk:
        raise EvidenceError("key_reuse", "the key is the CA's own")

    # 3. Signed.
    certificate = _builder(authority, statement, key=key, serial=serial).sign(
        signer.private_key, hashes.SHA256()
    )
    return X509Svid(certificate.public_bytes(Encoding.PEM).decode("ascii"), serial, statement.expires_at)


def read_basis(certificate: x509.Certificate) -> dict[str, str] | None:
    """What the extension of a certificate of ours says; None where there is none. Believe it only of a
    verified one."""
    for extension in certificate.extensions:
        if extension.oid == BASIS_OID and isinstance(extension.value, x509.UnrecognizedExtension):
            text: dict[str, str] = json.loads(asn1.decode_der(str, extension.value.value))
            return text
    return None


def _builder(
    authority: Authority, statement: Statement, *, key: BoundKey, serial: int
) -> x509.CertificateBuilder:
    identity = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(statement.spiffe_id)])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(authority.name)
        .subject_name(_EMPTY_NAME)
        .public_key(key.public)
        .serial_number(serial)
        .not_valid_before(max(at(statement.issued_at) - SKEW, authority.certificate.not_valid_before_utc))
        .not_valid_after(at(statement.expires_at))
    )
    # Critical because the subject is empty (RFC 5280, section 4.1.2.6).
    builder = builder.add_extension(identity, critical=True)
    for extension, critical in _FIXED:
        builder = builder.add_extension(extension, critical=critical)
    return (
        builder.add_extension(authority.key_identifier, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public), critical=False)
        .add_extension(_basis_extension(statement.basis), critical=False)
    )


def _basis_extension(basis: Basis) -> x509.UnrecognizedExtension:
    text = json.dumps(basis.claim(), separators=(",", ":"))
    return x509.UnrecognizedExtension(BASIS_OID, asn1.encode_der(text))
