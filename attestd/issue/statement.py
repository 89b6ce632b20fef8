"""What does every credential say, whatever its format: who it is for, what it rests on, and until when?"""

import re
from dataclasses import dataclass
from typing import Literal

from attestd.issue.jwk import base64url
from attestd.spiffe import trust_domain_of, validate_workload_id

Assurance = Literal["ek_verified", "allow_listed", "first_use", "emulated"]
"""How the TPM behind it was told from an impostor: its maker's certificate, an operator's list, nothing but
having been the first, or not at all because it is software."""

CLAIM = "urn:attestd:attestation"
"""The claim of our tokens for what they rest on. A URN and not a short word, because a private name in a
token that travels may collide (RFC 7519, section 4.3; the WIT draft advises against private names); it is
in the namespace of our problem types."""

_ASSURANCES = frozenset({"ek_verified", "allow_listed", "first_use", "emulated"})
_POLICY = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class Basis:
    """The accepted attestation that a credential rests on: a reference and a summary, never register values
    or serials."""

    attestation: str
    policy: str
    """`name@version`"""
    assurance: Assurance

    def __post_init__(self) -> None:
        if (
            not self.attestation
            or _POLICY.fullmatch(self.policy) is None
            or self.assurance not in _ASSURANCES
        ):
            raise ValueError("a basis names an attestation, a policy as name@version, and a known assurance")

    def claim(self) -> dict[str, str]:
        """The value of `CLAIM`; the X.509-SVID carries the same object as JSON."""
        return {"assurance": self.assurance, "attestation": self.attestation, "policy": self.policy}


@dataclass(frozen=True, slots=True)
class Statement:
    """Who a credential names, on what basis, and from when to when (milliseconds since the epoch)."""

    spiffe_id: str
    basis: Basis
    issued_at: int
    expires_at: int
    """On a whole second: every format counts in seconds. `lifetime.expiry` makes it."""

    def __post_init__(self) -> None:
        validate_workload_id(self.spiffe_id)
        if self.expires_at <= self.issued_at or self.expires_at % 1000:
            raise ValueError("a credential ends after it was issued, on a whole second")

    @property
    def trust_domain(self) -> str:
        """The trust domain of the SPIFFE ID."""
        return trust_domain_of(self.spiffe_id)

    @property
    def iat(self) -> int:
        """NumericDate of the issue, whole seconds."""
        return self.issued_at // 1000

    @property
    def exp(self) -> int:
        """NumericDate of the end, whole seconds."""
        return self.expires_at // 1000


def token_id(entropy: bytes) -> str:
    """A `jti` from at least 128 bits of randomness."""
    if len(entropy) < 16:
        raise ValueError("a token's id is made of at least 16 random bytes")
    return base64url(entropy)
