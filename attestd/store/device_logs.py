"""Which log did this device send last, and how much of its IMA list was judged?

One of each a device: so that a machine which has not rebooted sends its log by digest, and of its list only
what is new. Both are kept with an accepted attestation only.
"""

import zlib
from dataclasses import dataclass

from attestd.store.engine import Transaction

MAX_KEPT = 1024 * 1024
"""Bytes of a log that is kept; a larger one is sent anew each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaMark:
    """Where the judged part of a list ends: after how many entries, with which value (hex) of register 10 in
    this bank, in which boot, and under which policy."""

    reset_count: int
    restart_count: int
    bank: str
    entries: int
    value: str
    padded: bool
    policy_digest: str


def log_digest(tx: Transaction, device_id: str) -> str | None:
    """Hex SHA-256 of the log that is kept of this device."""
    row = tx.execute("SELECT sha256 FROM device_logs WHERE device_id = ?", (device_id,)).fetchone()
    return None if row is None else str(row["sha256"])


def log_content(tx: Transaction, device_id: str, sha256: str) -> bytes | None:
    """The log itself, if it is the one that is kept."""
    row = tx.execute(
        "SELECT content FROM device_logs WHERE device_id = ? AND sha256 = ?", (device_id, sha256)
    ).fetchone()
    return None if row is None else zlib.decompress(row["content"])


def keep_log(tx: Transaction, device_id: str, *, sha256: str, content: bytes, now: int) -> None:
    """Keep this log instead of the one before; the caller sees to `MAX_KEPT`."""
    tx.execute(
        """INSERT INTO device_logs (device_id, sha256, content, kept_at) VALUES (?, ?, ?, ?)
        ON CONFLICT (device_id) DO UPDATE SET sha256 = excluded.sha256, content = excluded.content,
        kept_at = excluded.kept_at""",
        (device_id, sha256, zlib.compress(content), now),
    )


def ima_mark(tx: Transaction, device_id: str) -> ImaMark | None:
    row = tx.execute("SELECT * FROM ima_marks WHERE device_id = ?", (device_id,)).fetchone()
    if row is None:
        return None
    members = {name: row[name] for name in ImaMark.__slots__}
    return ImaMark(**{**members, "padded": bool(row["padded"])})


def keep_ima_mark(tx: Transaction, device_id: str, mark: ImaMark, now: int) -> None:
    """Remember this mark instead of the one before."""
    tx.execute(
        """INSERT INTO ima_marks (device_id, reset_count, restart_count, bank, entries, value, padded,
        policy_digest, kept_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (device_id) DO UPDATE SET reset_count = excluded.reset_count,
        restart_count = excluded.restart_count, bank = excluded.bank, entries = excluded.entries,
        value = excluded.value, padded = excluded.padded, policy_digest = excluded.policy_digest,
        kept_at = excluded.kept_at""",
        (
            device_id,
            mark.reset_count,
            mark.restart_count,
            mark.bank,
            mark.entries,
            mark.value,
            int(mark.padded),
            mark.policy_digest,
            now,
        ),
    )
