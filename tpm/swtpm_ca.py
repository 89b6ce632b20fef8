"""Who certifies a software TPM's endorsement key?

A root for tests, made on the spot, in the role of a TPM maker. Its certificates look like those of
`swtpm_setup`: subject "unknown", maker, model and version in a critical alternative name, no end.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

# Fixed, so that nothing here asks for the time; the end is the "no well-defined expiration" of RFC 5280.
_NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_EK_CERTIFICATE_PURPOSE = x509.ObjectIdentifier("2.23.133.8.1")
_SUBJECT_DIRECTORY_ATTRIBUTES = x509.ObjectIdentifier("2.5.29.9")
# tpmSpecification: family "2.0", level 0, revision 164 (the DER that swtpm writes).
_TPM_SPECIFICATION = bytes.fromhex("3019301706056781050210310e300c0c03322e30020100020200a4")
# What swtpm_setup writes: IBM's PCI vendor number, "swtpm", and the firmware version of libtpms.
_MANUFACTURER, _MODEL, _VERSION = "id:00001014", "swtpm", "id:20191023"


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate with the key that it speaks for."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class TestCa:
    """A test root and, where a chain is wanted, one certificate between it and the keys' certificates."""

    __test__ = False  # Not a test, whatever pytest makes of the name.

    top: Issuer
    intermediate: Issuer | None = None

    @property
    def root(self) -> x509.Certificate:
        """The certificate to trust."""
        return self.top.certificate

    @property
    def issuer(self) -> Issuer:
        """Who signs endorsement certificates."""
        return self.intermediate or self.top


def make_test_ca(name: str = "swtpm test root", *, intermediate: bool = False) -> TestCa:
    """A new P-256 root; with `intermediate`, endorsement certificates are one step below it."""
    key = ec.generate_private_key(ec.SECP256R1())
    top = Issuer(_authority(name, key, name, key), key)
    if not intermediate:
        return TestCa(top)
    below = ec.generate_private_key(ec.SECP256R1())
    return TestCa(top, Issuer(_authority(f"{name}, intermediate", below, name, key), below))


@cache
def shared_test_ca() -> TestCa:
    """The root that the software TPMs of this process share unless they are told otherwise."""
    return make_test_ca()


def kept_test_ca(directory: Path) -> TestCa:
    """The root kept in `directory` (files ek-root.pem and ek-root.key), made there at the first call."""
    certificate_file, key_file = directory / "ek-root.pem", directory / "ek-root.key"
    if certificate_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return TestCa(Issuer(x509.load_pem_x509_certificate(certificate_file.read_bytes()), key))
    ca = make_test_ca()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        ca.top.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate_file.write_bytes(ca.root.public_bytes(serialization.Encoding.PEM))
    return ca


def issue_endorsement_certificate(ca: TestCa, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """An endorsement certificate for `key` as swtpm_setup would have it made, DER."""
    usage = "key_agreement" if isinstance(key, ec.EllipticCurvePublicKey) else "key_encipherment"
    maker = [("2.23.133.2.1", _MANUFACTURER), ("2.23.133.2.2", _MODEL), ("2.23.133.2.3", _VERSION)]
    name = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in maker])
    builder = _builder("unknown", key, ca.issuer.certificate.subject, ca.issuer.key)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DirectoryName(name)]), critical=True)
    builder = builder.add_extension(_usage(usage), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_EK_CERTIFICATE_PURPOSE]), critical=False)
    specification = x509.UnrecognizedExtension(_SUBJECT_DIRECTORY_ATTRIBUTES, _TPM_SPECIFICATION)
    builder = builder.add_extension(specification, critical=False)
    return builder.sign(ca.issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _authority(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    builder = _builder(name, key.public_key(), _common_name(issuer), issuer_key)
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign"), critical=True)
    subject_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(subject_identifier, critical=False).sign(issuer_key, hashes.SHA256())


def _builder(
    name: str,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(authority, critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(purpose: str) -> x509.KeyUsage:
    purposes = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    purposes += " key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: name == purpose for name in purposes.split()})
