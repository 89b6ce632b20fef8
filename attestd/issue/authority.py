"""May this certificate sign SPIFFE identities, and of which trust domain?

The signing authority is the root of the trust domain's bundle: self-signed, P-256, long-lived. X509-SVID
standard, sections 3 to 4; profile of RFC 5280, section 4.2.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestd.spiffe import trust_domain_of, validate_trust_domain
from tpm.errors import PolicyError

LIFETIME = timedelta(days=3650)
SKEW = timedelta(seconds=30)
"""Certificates begin this much before their issue, for relying parties whose clock is a little behind."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate of ours, with what each certificate that it signs repeats; comes from
    `read_authority` alone."""

    certificate: x509.Certificate
    trust_domain: str
    name: x509.Name
    key_identifier: x509.AuthorityKeyIdentifier
    not_before: int
    """Milliseconds since the epoch, as `not_after`."""
    not_after: int


def create_authority(
    key: ec.EllipticCurvePrivateKey, *, trust_domain: str, kid: str, serial: int, now: int
) -> x509.Certificate:
    """A self-signed CA certificate: URI SAN `spiffe://<trust domain>`, no CA below it, for ten years."""
    validate_trust_domain(trust_domain)
    start = at(now)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"attestd {kid}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start - SKEW)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_identity(trust_domain), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def read_authority(certificate: x509.Certificate) -> Authority:
    """PolicyError `ca_certificate` unless the certificate may sign SPIFFE identities as section 4 of the
    standard demands. Not checked: whether it is within its validity, which is asked at each issue."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key_identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        trust_domain = trust_domain_of(uris[0]) if len(uris) == 1 else ""
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise PolicyError("ca_certificate", f"the CA certificate is not one for SPIFFE: {error}") from None
    if not (constraints.critical and constraints.value.ca and usage.key_cert_sign):
        raise PolicyError("ca_certificate", "the CA certificate may not sign certificates")
    if uris != [f"spiffe://{trust_domain}"]:
        raise PolicyError(
            "ca_certificate", "the CA certificate names exactly one trust domain, without a path"
        )
    return Authority(
        certificate=certificate,
        trust_domain=trust_domain,
        name=certificate.subject,
        key_identifier=x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier),
        not_before=_milliseconds(certificate.not_valid_before_utc),
        not_after=_milliseconds(certificate.not_valid_after_utc),
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """A CA signs certificates and revocation lists and nothing else; a leaf signs data and nothing else."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def at(milliseconds: int) -> datetime:
    """The second in which this moment lies; certificates know no fractions."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC)


def serial_number(entropy: bytes) -> int:
    """A positive serial of 159 bits from 20 random bytes (RFC 5280, section 4.1.2.2: at most 20 octets, top
    bit zero).

    All of it is random, so serials neither repeat nor tell anything after a restart or a restored backup.
    """
    if len(entropy) != 20:
        raise ValueError("a serial number is made of 20 random bytes")
    serial = int.from_bytes(entropy, "big") >> 1
    if serial == 0:
        raise ValueError("20 zero bytes are not random")
    return serial


def _identity(trust_domain: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")])


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
