"""Has this nonce been used? One row decides."""

import hashlib

from attestd.store.engine import Row, Transaction
from attestd.store.rows import insert_once


def spend(tx: Transaction, nonce: bytes, *, spent_at: int, expires_at: int) -> bool:
    """True for one caller only, whoever else tries, on whichever replica. Kept as its SHA-256.

    `expires_at` is when the row may go: later than the nonce could still be accepted.
    """
    row: Row = {
        "nonce_sha256": hashlib.sha256(nonce).digest(),
        "spent_at": spent_at,
        "expires_at": expires_at,
    }
    return insert_once(tx, "spent_nonces", row)


def is_spent(tx: Transaction, nonce: bytes) -> bool:
    """For display and tests; only `spend` decides."""
    digest = hashlib.sha256(nonce).digest()
    return (
        tx.execute("SELECT 1 AS found FROM spent_nonces WHERE nonce_sha256 = ?", (digest,)).fetchone()
        is not None
    )


def purge(tx: Transaction, before: int) -> int:
    """Drop the rows that expired before that time; returns how many."""
    return tx.execute("DELETE FROM spent_nonces WHERE expires_at < ?", (before,)).rowcount
