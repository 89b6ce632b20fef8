"""How does this resource prove to the issuer who it is, when it asks about a token?

By a key of its own (`private_key_jwt`, RFC 7523 with the audience of draft-ietf-oauth-rfc7523bis), or by the
X.509-SVID of an attested machine over mTLS (RFC 8705).
"""

import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attestd.resource.peer import tls_context

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PATH: Final = "/oauth/introspect"
_SECONDS: Final = 60
_ALG_OF_CURVE: Final[Mapping[str, str]] = {"secp256r1": "ES256", "secp384r1": "ES384"}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class ByKey:
    """`client_id` of the `[[resource]]` at the issuer; `key_file` is the PEM of the private key whose public
    half is in its `jwks`."""

    client_id: str
    key_file: Path
    key: PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Reads the key: OSError or ValueError for a file that holds none."""
        object.__setattr__(self, "key", _load_key(self.key_file))

    @property
    def endpoint(self) -> str | None:
        """It asks where the issuer's other endpoints are."""
        return None

    def context(self, ca_file: Path | None) -> ssl.SSLContext:
        return tls_context(ca_file)

    def parameters(self, issuer: str, *, now: float) -> dict[str, str]:
        """A fresh assertion: it is good for one request."""
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now),
            "exp": int(now) + _SECONDS,
        }
        assertion = jwt.encode(
            claims, self.key, algorithm=alg_of(self.key), headers={"typ": "client-authentication+jwt"}
        )
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


@dataclass(frozen=True, slots=True)
class ByCertificate:
    """`client_id` is the SPIFFE ID in the certificate; `endpoint` is on the issuer's mTLS listener
    (`mtls_endpoint_aliases`). The files may be exchanged while the application runs."""

    client_id: str
    certificate_file: Path
    key_file: Path
    endpoint: str

    def context(self, ca_file: Path | None) -> ssl.SSLContext:
        context = tls_context(ca_file)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def parameters(self, issuer: str, *, now: float) -> dict[str, str]:
        return {"client_id": self.client_id}


Credentials = ByKey | ByCertificate


def alg_of(key: PrivateKey) -> str:
    """The algorithm that a key signs with; ValueError for a curve that has none here."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "PS256"
    if key.curve.name not in _ALG_OF_CURVE:
        raise ValueError("a resource's key is on P-256 or P-384, or RSA")
    return _ALG_OF_CURVE[key.curve.name]


def _load_key(path: Path) -> PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"{path} holds no EC or RSA key")
    alg_of(key)
    return key
