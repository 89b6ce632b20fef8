"""Under which key is a proof remembered that may be used once, and for how long?"""

import hashlib
from typing import NamedTuple


class Spend(NamedTuple):
    """A key for `nonces.spend`, and until when (milliseconds) its row must be kept. `kind` is what was proven
    by it: it tells which error of the RFCs a second use is."""

    key: bytes
    until: int
    kind: str


MARGIN_MS = 10 * 60 * 1000
"""How long a spent proof is remembered beyond its own time: longer than a clock may go back."""


def spend(kind: str, issuer: str, jti: str, *, until: int) -> Spend:
    """The replay key of one `jti`, which is unique for its kind and issuer (a client or a key) alone; `until`
    is the last moment, in milliseconds, at which the proof would be accepted."""
    digest = hashlib.sha256(b"attestd proof")
    for part in (kind, issuer, jti):
        raw = part.encode("utf-8")
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return Spend(digest.digest(), until + MARGIN_MS, kind)
