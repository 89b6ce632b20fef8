"""Which key signs, under which name and algorithm?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestd.issue.authority import Authority
from attestd.issue.jwk import PublicKey

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key of this service with everything that its signatures are found by."""

    use: str
    """`x509`, `jwt`, `wit`, `ear` or `audit`: a key has one use, and nothing of another use is ever signed
    with it."""
    kid: str
    alg: str
    """JWS algorithm name."""
    private_key: PrivateKey = field(repr=False)
    jwk: Mapping[str, str]
    """The public half, required members only."""
    authority: Authority | None = None
    """The CA certificate, for the use `x509` alone."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self.private_key.public_key()
