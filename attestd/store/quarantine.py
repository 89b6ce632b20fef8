"""Which makers were refused because nobody trusts them yet?

One row for each issuer that was named, whatever the number of machines, so that an operator can look at its
certificates later. Anyone can name an issuer: the rows are bounded, and so is how often one is written.
"""

import json
from base64 import b64decode
from dataclasses import asdict, dataclass

from attestd.store.engine import Row, Transaction
from attestd.store.rows import columns, insert

MAX_MAKERS = 100
REFRESH_MS = 60_000
"""A maker that is refused again within this time is not written again."""
HOLD_MS = 60 * 60_000
"""How long a maker keeps its place when others come."""
KEEP_MS = 30 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedMaker:
    """An issuer (SHA-256 in hex of its name in DER), what the last certificate under its name said, and that
    certificate with the chain that came with it (DER). None of it is proven. Times are milliseconds."""

    issuer_sha256: str
    issuer: str
    manufacturer: str | None
    model: str | None
    certificate: bytes
    chain: tuple[bytes, ...]
    times: int = 1
    first_at: int
    last_at: int


def is_due(tx: Transaction, issuer_sha256: str, now: int) -> bool:
    """Would `note` write something? Read first, so that a flood of refusals costs no transaction each."""
    known = find(tx, issuer_sha256)
    if known is not None:
        return not 0 <= now - known.last_at < REFRESH_MS
    return _count(tx) < MAX_MAKERS or _oldest(tx).last_at + HOLD_MS <= now


def note(tx: Transaction, maker: QuarantinedMaker, now: int) -> bool:
    """Keep it, once more if it is known; False if it was kept just now, or every place is freshly taken."""
    if not is_due(tx, maker.issuer_sha256, now):
        return False
    known = find(tx, maker.issuer_sha256)
    if known is not None:
        remove(tx, maker.issuer_sha256)
        kept = asdict(maker) | {"times": known.times + 1, "first_at": known.first_at}
    else:
        if _count(tx) >= MAX_MAKERS:
            remove(tx, _oldest(tx).issuer_sha256)
        kept = asdict(maker)
    insert(tx, "quarantined_makers", columns(kept))
    return True


def find(tx: Transaction, issuer_sha256: str) -> QuarantinedMaker | None:
    row = tx.execute("SELECT * FROM quarantined_makers WHERE issuer_sha256 = ?", (issuer_sha256,)).fetchone()
    return None if row is None else _maker(row)


def list_all(tx: Transaction) -> list[QuarantinedMaker]:
    """The last refused first."""
    rows = tx.execute("SELECT * FROM quarantined_makers ORDER BY last_at DESC, issuer_sha256").fetchall()
    return [_maker(row) for row in rows]


def remove(tx: Transaction, issuer_sha256: str) -> bool:
    done = tx.execute("DELETE FROM quarantined_makers WHERE issuer_sha256 = ?", (issuer_sha256,))
    return done.rowcount == 1


def purge(tx: Transaction, before: int) -> int:
    """Forget makers that were last refused before that time; returns how many."""
    return tx.execute("DELETE FROM quarantined_makers WHERE last_at < ?", (before,)).rowcount


def _count(tx: Transaction) -> int:
    return int(tx.execute("SELECT COUNT(*) AS n FROM quarantined_makers").fetchone()["n"])


def _oldest(tx: Transaction) -> QuarantinedMaker:
    row = tx.execute("SELECT * FROM quarantined_makers ORDER BY last_at, issuer_sha256 LIMIT 1").fetchone()
    return _maker(row)


def _maker(row: Row) -> QuarantinedMaker:
    values = dict(row)
    values["chain"] = tuple(b64decode(each) for each in json.loads(values["chain"]))
    return QuarantinedMaker(**values)
