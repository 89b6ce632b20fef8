"""Is this DPoP nonce ours, and fresh? (RFC 9449, section 9)

Nothing is kept: a nonce is the time and a MAC over it. It limits how far ahead of its use a proof can be
made.
"""

import hashlib
import hmac
from typing import Final

from attestd.resource.jwk import base64url, decode

HEADER: Final = "DPoP-Nonce"
SECONDS: Final = 300
_SKEW: Final = 5


class Nonces:
    """Processes that serve one resource share the key."""

    def __init__(self, key: bytes) -> None:
        """ValueError unless the key has at least 32 bytes."""
        if len(key) < 32:
            raise ValueError("a nonce key has at least 32 bytes")
        self._key = key

    def issue(self, *, now: float) -> str:
        moment = int(now).to_bytes(8)
        return base64url(moment + self._mac(moment))

    def holds(self, nonce: object, *, now: float) -> bool:
        """Whether we issued it within the last minutes."""
        try:
            raw = decode(nonce)
        except ValueError:
            return False
        moment, mac = raw[:8], raw[8:]
        if not hmac.compare_digest(mac, self._mac(moment)):
            return False
        return -_SKEW <= now - int.from_bytes(moment) <= SECONDS

    def _mac(self, moment: bytes) -> bytes:
        return hmac.digest(self._key, b"attestd-resource-nonce\0" + moment, hashlib.sha256)[:16]
