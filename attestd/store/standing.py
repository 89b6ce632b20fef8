"""On what does a token or credential rest, as the rows are now?

One statement for a token with all that it descends from: asked at every introspection, so it reads the
columns that decide and no others. What makes something dead is not decided here. """

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestd.store.engine import Transaction

_MACHINE = """d.device_id AS machine, d.state, d.posture, d.root_sha256 AS machine_root,
    d.reset_count AS machine_reset, d.restart_count AS machine_restart, d.manufacturer, d.firmware_version"""

_LINE = f"""WITH RECURSIVE line (token_id) AS (
        SELECT token_id FROM tokens WHERE token_id = ?
        UNION
        SELECT p.parent_id FROM token_parents p JOIN line l ON p.token_id = l.token_id)
    SELECT t.device_id, t.reset_count, t.restart_count, t.root_sha256, t.expires_at, t.revoked_at,
        c.credential_id, c.revoked_at AS credential_revoked_at, {_MACHINE}
    FROM line LEFT JOIN tokens t ON t.token_id = line.token_id
    LEFT JOIN credentials c ON c.credential_id = t.credential_id
    LEFT JOIN devices d ON d.device_id = t.device_id"""

_CREDENTIAL = f"""SELECT c.device_id, c.reset_count, c.restart_count, c.root_sha256, c.expires_at,
        c.revoked_at, c.credential_id, c.revoked_at AS credential_revoked_at, {_MACHINE}
    FROM credentials c LEFT JOIN devices d ON d.device_id = c.device_id
    WHERE c.credential_id = ? AND c.format = ? AND c.spiffe_id = ? AND c.key_thumbprint = ?"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A device as its latest verdict left it; a `devices.Device` has the same members."""

    device_id: str
    state: str
    posture: str | None
    root_sha256: str | None
    reset_count: int | None
    restart_count: int | None
    manufacturer: str | None
    firmware_version: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A token or a credential: for which boot it was issued, when it ends, and its machine now.

    Times in milliseconds. `machine` is None when the device is not there any more.
    """

    device_id: str
    reset_count: int
    restart_count: int
    root_sha256: str | None
    expires_at: int
    revoked_at: int | None
    """When it was ended early, or the credential that it rests on was, or that credential is not known."""
    machine: Machine | None

    def is_live(self, now: int) -> bool:
        """Neither expired nor ended early."""
        return self.revoked_at is None and now < self.expires_at


def of_line(tx: Transaction, token_id: str) -> list[Standing]:
    """The token and everything that it descends from; empty unless all of it is known."""
    rows = tx.execute(_LINE, (token_id,)).fetchall()
    return [] if any(row["device_id"] is None for row in rows) else [_standing(row) for row in rows]


def of_credential(
    tx: Transaction, credential_id: str, *, credential_format: str, spiffe_id: str, thumbprint: str
) -> Standing | None:
    """The credential; None unless it was issued as this kind, to this client, for this key."""
    row = tx.execute(_CREDENTIAL, (credential_id, credential_format, spiffe_id, thumbprint)).fetchone()
    return None if row is None else _standing(row)


def _standing(row: Mapping[str, Any]) -> Standing:
    revoked_at = row["revoked_at"]
    if revoked_at is None:
        revoked_at = 0 if row["credential_id"] is None else row["credential_revoked_at"]
    machine = None
    if row["machine"] is not None:
        machine = Machine(
            row["machine"],
            row["state"],
            row["posture"],
            row["machine_root"],
            row["machine_reset"],
            row["machine_restart"],
            row["manufacturer"],
            None if row["firmware_version"] is None else int(row["firmware_version"], 16),
        )
    return Standing(
        row["device_id"],
        row["reset_count"],
        row["restart_count"],
        row["root_sha256"],
        row["expires_at"],
        revoked_at,
        machine,
    )
