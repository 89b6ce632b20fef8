"""A trust domain in memory: authorities, SVIDs of all three kinds, and what they are verified with."""

import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestd.agent.holdings import Bundle, Held, Holdings, JwtSvid, WitSvid, X509Svid
from attestd.agent.settings import Callers, Workload

EC = ec.EllipticCurvePrivateKey


def workload(agent: str, **given: Any) -> Workload:
    """A workload that nobody may ask for unless `user`, `group`, `unit` or `path` say so."""
    callers = {key: frozenset(given.pop(key, ())) for key in ("user", "group", "unit", "path")}
    settled = {
        "formats": ("x509-svid", "jwt-svid", "wit-svid"),
        "key": "software",
        "audiences": ("https://a.example.org", "https://b.example.org"),
        "hint": "",
        "files": None,
        "on_renewal": (),
        "seals": (),
    }
    return Workload(agent=agent, callers=Callers(**callers), **{**settled, **given})


def private_jwk(key: EC) -> dict[str, str]:
    return {**public_jwk(key), "d": _b64(key.private_numbers().private_value)}


def public_jwk(key: EC) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _b64(numbers.x), "y": _b64(numbers.y)}


def _b64(number: int) -> str:
    return urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def _certificate(name: str, subject: EC, issuer: EC, *, ca: bool, until: datetime) -> bytes:
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"),
        False,
    )
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(subject.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, decipher_only=False, **usage
            ),
            critical=True,
        )
    )
    if not ca:
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Domain:
    """One trust domain."""

    name: str
    authority: EC
    tokens: EC
    certificate: bytes

    @classmethod
    def new(cls, name: str = "example.org") -> "Domain":
        authority, tokens = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        until = datetime.now(UTC) + timedelta(days=1)
        return cls(
            name,
            authority,
            tokens,
            _certificate(f"spiffe://{name}", authority, authority, ca=True, until=until),
        )

    def spiffe_id(self, agent: str) -> str:
        return f"spiffe://{self.name}/agent/{agent}/box"

    @property
    def bundle(self) -> Bundle:
        key = {**public_jwk(self.tokens), "kid": "t1"}
        keys = [json.dumps({"keys": [{**key, "use": use}]}) for use in ("jwt-svid", "wit-svid")]
        return Bundle(self.name, 1, (self.certificate,), *keys)

    def x509(self, agent: str, *, until: int) -> X509Svid:
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.fromtimestamp(until // 1000, UTC)
        leaf = _certificate(self.spiffe_id(agent), key, self.authority, ca=False, until=ends)
        secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return X509Svid(self.spiffe_id(agent), (leaf,), secret, until)

    def wit(self, agent: str, *, until: int) -> WitSvid:
        key = ec.generate_private_key(ec.SECP256R1())
        claims = {
            "sub": self.spiffe_id(agent),
            "exp": until // 1000,
            "cnf": {"jwk": {**public_jwk(key), "alg": "ES256"}},
        }
        text = jwt.encode(claims, self.tokens, "ES256", headers={"kid": "t1", "typ": "wit+jwt"})
        return WitSvid(self.spiffe_id(agent), text, json.dumps(private_jwk(key)), until)

    def jwt(self, agent: str, audiences: tuple[str, ...], *, until: int, **claims: Any) -> JwtSvid:
        content = {"sub": self.spiffe_id(agent), "aud": list(audiences), "exp": until // 1000, **claims}
        text = jwt.encode(content, self.tokens, "ES256", headers={"kid": "t1"})
        return JwtSvid(self.spiffe_id(agent), text, audiences, until)

    def held(self, each: Workload, *, until: int) -> Held:
        """What a round brings for this workload."""
        x509_svid = self.x509(each.agent, until=until) if "x509-svid" in each.formats else None
        wit = self.wit(each.agent, until=until) if "wit-svid" in each.formats else None
        if each.key == "tpm":
            x509_svid = x509_svid and X509Svid(x509_svid.spiffe_id, x509_svid.chain, None, until)
            wit = wit and WitSvid(wit.spiffe_id, wit.text, None, until)
        return Held(each, until - 600_000, x509_svid, wit, None, {})

    def holdings(self, *workloads: Workload, until: int, refused: dict[str, str] | None = None) -> Holdings:
        """Credentials for these; of `refused` the service said so, and why."""
        held = {each.agent: self.held(each, until=until) for each in workloads}
        return Holdings(held, refused or {}, self.bundle, frozenset(refused or {}))
