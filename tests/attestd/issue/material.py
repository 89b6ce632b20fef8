"""A ring of keys, and what is issued with it, for tests of this folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestd.issue.jwk import BoundKey, from_public_key, public_jwk
from attestd.issue.keys import KeyRing, Keys, create_keys
from attestd.issue.statement import Basis, Statement

TRUST_DOMAIN = "example.org"
EXTERNAL_URL = "https://attestd.example.org"
SPIFFE_ID = "spiffe://example.org/agent/telemetry/gateway-7"
NOW = 1_764_000_000_500
MINUTE = 60_000


@dataclass(frozen=True)
class State:
    """A key's state as the store would tell it."""

    kid: str
    use: str = "jwt"
    alg: str = "ES256"
    state: str = "published"
    published_at: int = NOW
    retired_at: int | None = None
    last_expiry: int = 0


@dataclass
class States:
    """The states, to be changed under a running ring; counts how often they were read."""

    rows: list[State] = field(default_factory=list)
    reads: int = 0

    def read(self) -> list[State]:
        self.reads += 1
        return list(self.rows)


def new_ring(directory: Path, *, now: int = NOW) -> tuple[KeyRing, States]:
    """A directory as `attestd init` makes it, every key active."""
    made = create_keys(directory, trust_domain=TRUST_DOMAIN, now=now)
    states = States([State(kid, use, alg, "active", now) for use, kid, alg in made])
    return open_ring(directory, states), states


def open_ring(directory: Path, states: States) -> KeyRing:
    return KeyRing(directory, trust_domain=TRUST_DOMAIN, read_states=states.read)


def new_keys(directory: Path, *, now: int = NOW) -> Keys:
    return new_ring(directory, now=now)[0].at(now)


def statement(**changes: Any) -> Statement:
    """Ten minutes for one agent, on a whole second."""
    values: dict[str, Any] = {
        "spiffe_id": SPIFFE_ID,
        "basis": Basis("attestation-1", "edge-gateway@3", "ek_verified"),
        "issued_at": NOW,
        "expires_at": NOW - NOW % 1000 + 10 * MINUTE,
    }
    return Statement(**values | changes)


def device_key(alg: str = "ES256") -> tuple[ec.EllipticCurvePrivateKey, BoundKey]:
    """A software key of a device, and what a credential is bound to."""
    curve: ec.EllipticCurve = ec.SECP384R1() if alg == "ES384" else ec.SECP256R1()
    private_key = ec.generate_private_key(curve)
    return private_key, from_public_key(private_key.public_key(), alg=alg)


def jwk_of(private_key: ec.EllipticCurvePrivateKey, alg: str = "ES256") -> dict[str, object]:
    return {**public_jwk(private_key.public_key()), "alg": alg}
