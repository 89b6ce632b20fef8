"""What could a maker, or an attacker, sign? Authorities and EK certificates with one thing changed."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from asn1crypto import x509 as der
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
MODULUS = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
"""Of an EK that nobody can use: its private half is forgotten."""

EK_PURPOSE = "2.23.133.8.1"
MAKER = (("2.23.133.2.1", "id:49465800"), ("2.23.133.2.2", "SLB 9670 TPM2.0"), ("2.23.133.2.3", "id:073f"))
Extensions = tuple[tuple[x509.ExtensionType, bool], ...]


def rsa_key(modulus: int = MODULUS, exponent: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def name(*attributes: tuple[str, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes])


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*granted: str) -> tuple[x509.ExtensionType, bool]:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    names += ["key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{one: one in granted for one in names}), True


def constraints(ca: bool, length: int | None = None) -> tuple[x509.ExtensionType, bool]:
    return x509.BasicConstraints(ca, length), True


def purposes(*oids: str) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in oids]), False


def directory_name(*attributes: tuple[str, str]) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.DirectoryName(name(*attributes))]), True


def unknown(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00"), critical


@dataclass(frozen=True)
class Form:
    """A certificate before it is signed; `replace` changes one thing."""

    subject: x509.Name
    key: Any
    extensions: Extensions
    not_before: datetime.datetime = NOW - 100 * DAY
    not_after: datetime.datetime = NOW + 1000 * DAY
    names_its_issuer_key: bool = True

    def without(self, kind: type[x509.ExtensionType]) -> "Form":
        return replace(
            self, extensions=tuple(pair for pair in self.extensions if not isinstance(pair[0], kind))
        )

    def having(self, extension: x509.ExtensionType, critical: bool) -> "Form":
        """With this extension in place of one of its kind."""
        rest = self.without(type(extension)).extensions
        return replace(self, extensions=(*rest, (extension, critical)))


def ek_form(key: Any = None, **changes: Any) -> Form:
    """An EK certificate as the TCG's profile wants it."""
    key = key or rsa_key()
    granted = "key_encipherment" if isinstance(key, rsa.RSAPublicKey) else "key_agreement"
    extensions = (directory_name(*MAKER), constraints(False), usage(granted), purposes(EK_PURPOSE))
    return replace(Form(x509.Name([]), key, extensions), **changes)


def authority_form(title: str, key: Any, **changes: Any) -> Form:
    form = Form(common_name(title), key, (constraints(True), usage("key_cert_sign", "crl_sign")))
    return replace(form, **changes)


@dataclass(frozen=True)
class Authority:
    """A key that signs certificates, and the certificate that says so."""

    key: Any
    certificate: x509.Certificate

    @classmethod
    def root(cls, title: str = "Maker Root", key: Any = None, **changes: Any) -> "Authority":
        key = key or ec.generate_private_key(ec.SECP256R1())
        form = authority_form(title, key.public_key(), **changes)
        return cls(key, sign(form, key, form.subject))

    def authority(self, title: str, key: Any = None, **changes: Any) -> "Authority":
        """An intermediate authority below this one."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        return Authority(key, self.sign(authority_form(title, key.public_key(), **changes)))

    def changed(self, change: Callable[[Form], Form], title: str) -> "Authority":
        """An intermediate authority below this one, with one thing changed."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Authority(key, self.sign(change(authority_form(title, key.public_key()))))

    def sign(self, form: Form) -> x509.Certificate:
        return sign(form, self.key, self.certificate.subject)

    def endorse(self, form: Form | None = None) -> bytes:
        """An EK certificate, DER."""
        return self.sign(form or ek_form()).public_bytes(Encoding.DER)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def sign(form: Form, key: Any, issuer: x509.Name) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(form.subject)
        .issuer_name(issuer)
        .public_key(form.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(form.not_before)
        .not_valid_after(form.not_after)
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = list(form.extensions)
    if isinstance(form.key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        extensions.append((x509.SubjectKeyIdentifier.from_public_key(form.key), False))
    if form.names_its_issuer_key:
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def signed_anew(
    certificate: bytes, key: ec.EllipticCurvePrivateKey, change: Callable[[der.Certificate], None]
) -> bytes:
    """The certificate after a change that no library would make, signed by `key` (ECDSA, SHA-256)."""
    parsed = der.Certificate.load(certificate)
    change(parsed)
    body = parsed["tbs_certificate"].dump(force=True)
    parsed["signature_value"] = key.sign(body, ec.ECDSA(hashes.SHA256()))
    return bytes(parsed.dump(force=True))
