"""Which other devices have the value that was objected to, and since when?

Answered from the refusals that are kept and from the logs that devices sent last; for people, not for
verdicts.
"""

import json
import re
import zlib
from dataclasses import dataclass

from attestd.store.engine import Transaction

MAX_LOGS = 5000
"""Kept logs that are looked through, the newest first."""

_DIGEST = re.compile(r"(?:[0-9a-f]{2}){20,64}")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How many other devices have it: refused for it, or accepted with it in their log; `since` is the first
    time (milliseconds) that one of them did, None if none does."""

    refused: int
    accepted: int
    since: int | None


def find_elsewhere(tx: Transaction, device_id: str, *, subject: str, found: str | None) -> Elsewhere | None:
    """None for a finding whose value is no digest: such values are not compared."""
    if found is None or _DIGEST.fullmatch(found) is None:
        return None
    refused = _refused(tx, device_id, subject, found)
    accepted = _accepted(tx, device_id, bytes.fromhex(found))
    times = [*refused.values(), *accepted.values()]
    return Elsewhere(len(refused), len(set(accepted) - set(refused)), min(times) if times else None)


def _refused(tx: Transaction, device_id: str, subject: str, found: str) -> dict[str, int]:
    rows = tx.execute(
        """SELECT device_id, finished_at, findings FROM attestations
        WHERE outcome = 'refused' AND device_id <> ? AND findings LIKE ? ORDER BY finished_at""",
        (device_id, f'%"{found}"%'),
    ).fetchall()
    first: dict[str, int] = {}
    for row in rows:
        same = any(
            one.get("subject") == subject and one.get("found") == found for one in json.loads(row["findings"])
        )
        if same:
            first.setdefault(row["device_id"], int(row["finished_at"]))
    return first


def _accepted(tx: Transaction, device_id: str, digest: bytes) -> dict[str, int]:
    rows = tx.execute(
        """SELECT device_id, content, kept_at FROM device_logs
        WHERE device_id <> ? ORDER BY kept_at DESC LIMIT ?""",
        (device_id, MAX_LOGS),
    ).fetchall()
    return {
        row["device_id"]: int(row["kept_at"]) for row in rows if digest in zlib.decompress(row["content"])
    }
