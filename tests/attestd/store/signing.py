"""A real P-256 key that signs the heads of audit chains."""

from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_ECDSA = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class AuditKey:
    """Signs, and verifies what it signed itself."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, kid: str) -> Self:
        return cls(kid, ec.generate_private_key(ec.SECP256R1()))

    def sign(self, message: bytes, /) -> bytes:
        return self.private.sign(message, _ECDSA)

    def verify(self, kid: str, message: bytes, signature: bytes, /) -> bool:
        try:
            self.private.public_key().verify(signature, message, _ECDSA)
        except InvalidSignature:
            return False
        return kid == self.kid
