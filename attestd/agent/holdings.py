"""What does this machine hold for its agents now?

One picture at a time, frozen and replaced whole: who serves from it never sees half of a renewal. Whatever
has expired is not served, whoever still has it in a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from attestd.agent.settings import Workload


@dataclass(frozen=True, slots=True)
class X509Svid:
    """DER certificates, the leaf first, and the key in PKCS#8 DER; None for one that stays in the TPM.
    `expires_at` in milliseconds."""

    spiffe_id: str
    chain: tuple[bytes, ...]
    key: bytes | None = field(repr=False)
    expires_at: int


@dataclass(frozen=True, slots=True)
class WitSvid:
    """The token, and the private JWK (JSON) that it is bound to; None for a key that stays in the TPM."""

    spiffe_id: str
    text: str = field(repr=False)
    key: str | None = field(repr=False)
    expires_at: int


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A bearer token for exactly these audiences."""

    spiffe_id: str
    text: str = field(repr=False)
    audiences: tuple[str, ...]
    expires_at: int


Svid = TypeVar("Svid", X509Svid, WitSvid, JwtSvid)


@dataclass(frozen=True, slots=True)
class Held:
    """What one workload has. `issued_at` is milliseconds by this machine's clock. `jwt` is there only where
    files are delivered, for all audiences of the workload; the Workload API gets one for those that a caller
    names. `files` are the contents to be delivered, by name, as `attestd agent attest --out` writes them."""

    workload: Workload
    issued_at: int
    x509: X509Svid | None
    wit: WitSvid | None
    jwt: JwtSvid | None
    files: Mapping[str, bytes] = field(repr=False)

    def at(self, now: int) -> Held:
        """The same without what has expired."""
        return replace(self, x509=_live(self.x509, now), wit=_live(self.wit, now), jwt=_live(self.jwt, now))


@dataclass(frozen=True, slots=True)
class Bundle:
    """What to verify others of the trust domain with: DER authorities, and the keys of JWT-SVIDs and
    WIT-SVIDs each as a JWK Set (JSON)."""

    trust_domain: str
    sequence: int
    authorities: tuple[bytes, ...]
    jwt_keys: str
    wit_keys: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """All of it. `held` by agent; `withheld` says for each other workload why it has nothing. `refused` are
    those of them that the service decided about, by its last word: they may not have anything, where others
    only cannot now."""

    held: Mapping[str, Held]
    withheld: Mapping[str, str]
    bundle: Bundle | None
    refused: frozenset[str] = frozenset()

    def current(self, agent: str, *, now: int) -> Held | None:
        """What the agent has and may still use; None for one that has nothing."""
        held = self.held.get(agent)
        return None if held is None else held.at(now)


def _live(svid: Svid | None, now: int) -> Svid | None:
    return svid if svid is not None and svid.expires_at > now else None


def first_end(held: Held) -> int:
    """When the first of its credentials ends, in milliseconds; `NEVER` where there is none."""
    ends = [svid.expires_at for svid in (held.x509, held.wit, held.jwt) if svid is not None]
    return min(ends, default=NEVER)


NOTHING = Holdings({}, {}, None)
NEVER = 1 << 62
