"""Is this nonce ours, for whom, and from when? Is this enrolment the one that we began?

Both are sealed tokens (AES-SIV, RFC 5297) under keys derived from `keys/nonce.key` and the store's epoch, so
that issuing one writes nothing, every replica accepts it, and a restored backup (whose epoch is raised)
accepts none of the old ones.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tpm.errors import EvidenceError

NONCE_SIZE = 32
_RANDOM_SIZE = 8


def _derive(secret: bytes, *, label: bytes, epoch: int) -> AESSIV:
    info = b"attestd " + label + b" " + str(epoch).encode()
    return AESSIV(HKDF(SHA256(), 64, salt=None, info=info).derive(secret))


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals small values to one meaning; `keys[0]` seals, every key opens (the previous one is still
    accepted)."""

    keys: tuple[AESSIV, ...]

    @classmethod
    def derive(cls, secrets_: Sequence[bytes], *, label: bytes, epoch: int) -> "Sealer":
        """One sealer for one label: values sealed under another label, secret or epoch never open here."""
        if not secrets_:
            raise ValueError("a sealer needs at least one key")
        return cls(tuple(_derive(secret, label=label, epoch=epoch) for secret in secrets_))

    def seal(self, value: bytes, *context: bytes) -> bytes:
        """`value` encrypted and authenticated together with `context`, which is not part of the result."""
        return self.keys[0].encrypt(value, list(context))

    def open(self, sealed: bytes, *context: bytes) -> bytes:
        """The sealed value; EvidenceError `not_ours` when no key of ours made it for this context."""
        for key in self.keys:
            try:
                return key.decrypt(sealed, list(context))
            except (InvalidTag, ValueError):
                continue
        raise EvidenceError("not_ours", "this was not issued by this service for this purpose; begin again")


@dataclass(frozen=True, slots=True)
class Nonces:
    """Challenges for one purpose: 32 bytes that carry their own time and name their device."""

    sealer: Sealer
    purpose: bytes

    def issue(self, device_id: str, *, now: int) -> bytes:
        """A nonce for this device; `now` in milliseconds is sealed into it beside eight random bytes."""
        value = secrets.token_bytes(_RANDOM_SIZE) + now.to_bytes(8, "big")
        return self.sealer.seal(value, self.purpose, device_id.encode("ascii"))

    def issued_at(self, nonce: bytes, device_id: str) -> int:
        """When the nonce was issued, in milliseconds; EvidenceError `nonce_unknown` when it is not ours for
        this device."""
        if len(nonce) != NONCE_SIZE:
            raise EvidenceError("nonce_unknown", f"a nonce has {NONCE_SIZE} bytes, this one {len(nonce)}")
        try:
            value = self.sealer.open(nonce, self.purpose, device_id.encode("ascii"))
        except EvidenceError:
            raise EvidenceError(
                "nonce_unknown", "the nonce was not issued to this device for this purpose"
            ) from None
        return int.from_bytes(value[_RANDOM_SIZE:], "big")
