"""Has this enrolment been activated, and by which key?"""

from dataclasses import dataclass

from attestd.store.engine import Row, Transaction
from attestd.store.rows import insert_once


@dataclass(frozen=True, slots=True)
class SpentEnrollment:
    """An activation that took place. The enrolment itself is known by its SHA-256 (hex) only."""

    enrollment_sha256: str
    device_id: str
    ak_name: str
    """Hexadecimal."""
    expires_at: int


def spend(tx: Transaction, enrollment_sha256: str, *, device_id: str, ak_name: str, expires_at: int) -> bool:
    """True for the first activation of this enrolment only. `expires_at`: when the row may go."""
    row: Row = {
        "enrollment_sha256": enrollment_sha256,
        "device_id": device_id,
        "ak_name": ak_name,
        "expires_at": expires_at,
    }
    return insert_once(tx, "spent_enrollments", row)


def find(tx: Transaction, enrollment_sha256: str) -> SpentEnrollment | None:
    """What the first activation said."""
    row = tx.execute(
        "SELECT * FROM spent_enrollments WHERE enrollment_sha256 = ?", (enrollment_sha256,)
    ).fetchone()
    return None if row is None else SpentEnrollment(**row)


def purge(tx: Transaction, before: int) -> int:
    """Drop the rows that expired before that time; returns how many."""
    return tx.execute("DELETE FROM spent_enrollments WHERE expires_at < ?", (before,)).rowcount
