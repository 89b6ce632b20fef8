"""Whom does the machine trust? A CA made for this run, and the service's certificate from it."""

import datetime
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_DAYS = 30


@dataclass(frozen=True, slots=True)
class Tls:
    """The service's chain and key, the CA's certificate, and its SHA-256 (DER, hex) as operators tell it."""

    chain: Path
    key: Path
    root: Path
    root_sha256: str


def make_tls(directory: Path, host: str) -> Tls:
    """A new CA with a certificate for `host` and this machine's loopback."""
    directory.mkdir(parents=True, exist_ok=True)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = _name("attestd test CA")
    builder = _builder(root_name, root_name, root_key)
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign"), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = builder.add_extension(identifier, critical=False).sign(root_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(IPv4Address("127.0.0.1"))])
    builder = _builder(_name(host), root_name, key).add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    own = builder.add_extension(authority, critical=False).sign(root_key, hashes.SHA256())
    made = Tls(directory / "chain.pem", directory / "key.pem", directory / "ca.pem", _fingerprint(root))
    made.key.touch(mode=0o600)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.root.write_bytes(root.public_bytes(Encoding.PEM))
    made.chain.write_bytes(own.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM))
    return made


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _usage(purpose: str) -> x509.KeyUsage:
    purposes = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    purposes += " key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: name == purpose for name in purposes.split()})
