"""Which credentials were issued, on what do they rest, and are they still good?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from attestd.store.engine import Transaction, Value
from attestd.store.rows import columns, insert


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One credential, known by what identifies it: the token itself and its key are not kept.

    Times in milliseconds.
    """

    credential_id: str
    """The certificate's serial number in hex, or the token's `jti`."""
    attestation_id: str
    device_id: str
    agent: str
    format: str
    spiffe_id: str
    key_thumbprint: str | None
    """RFC 7638, of the bound key; None for a credential that is bound to none."""
    issued_at: int
    expires_at: int
    reset_count: int
    restart_count: int
    policy_name: str
    policy_version: int
    root_sha256: str | None
    """The trusted root that vouched for the device's TPM, if one did."""
    revoked_at: int | None = None
    revoked_reason: str | None = None
    key_jwk: str | None = None
    """The bound key as a JSON object with its `alg`; None too for what an older version recorded."""
    resident: bool = False
    """The bound key was proven to live in the device's TPM."""

    def is_live(self, now: int) -> bool:
        """Neither expired nor ended early."""
        return self.revoked_at is None and now < self.expires_at


_COLUMNS = ", ".join(field.name for field in fields(Issued))


def insert_all(tx: Transaction, credentials: Sequence[Issued]) -> None:
    """Record what is about to be handed out, before it is."""
    for credential in credentials:
        insert(tx, "credentials", columns(asdict(credential)))


def get(tx: Transaction, credential_id: str) -> Issued | None:
    row = tx.execute(
        f"SELECT {_COLUMNS} FROM credentials WHERE credential_id = ?", (credential_id,)
    ).fetchone()
    return None if row is None else _issued(row)


def find_bound(
    tx: Transaction, spiffe_id: str, thumbprint: str, now: int, *, credential_format: str | None = None
) -> Issued | None:
    """The live credential of this client that is bound to this key; the one that ends last where it has
    several, of the given format alone if one is given."""
    found = list_bound(tx, spiffe_id, now, credential_format=credential_format)
    return next((each for each in found if each.key_thumbprint == thumbprint), None)


def list_bound(
    tx: Transaction, spiffe_id: str, now: int, *, credential_format: str | None = None
) -> list[Issued]:
    """A client's live credentials whose keys are known here, the one that ends last first."""
    rows = tx.execute(
        f"""SELECT {_COLUMNS} FROM credentials
        WHERE spiffe_id = ? AND key_jwk IS NOT NULL AND expires_at > ? AND revoked_at IS NULL
        ORDER BY expires_at DESC, issued_at DESC, credential_id""",
        (spiffe_id, now),
    ).fetchall()
    found = [_issued(row) for row in rows]
    return [each for each in found if credential_format in (None, each.format)]


def list_for_device(tx: Transaction, device_id: str, *, live_at: int | None = None) -> list[Issued]:
    """A device's credentials in the order of their issue; with `live_at` only those that are good then."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM credentials WHERE device_id = ? ORDER BY issued_at, credential_id",
        (device_id,),
    ).fetchall()
    found = [_issued(row) for row in rows]
    return found if live_at is None else [each for each in found if each.is_live(live_at)]


def count_live(tx: Transaction, now: int) -> int:
    """Credentials that are good now."""
    row = tx.execute(
        "SELECT COUNT(*) AS n FROM credentials WHERE expires_at > ? AND revoked_at IS NULL", (now,)
    ).fetchone()
    return int(row["n"])


def bound_elsewhere(tx: Transaction, key_thumbprint: str, device_id: str, *, now: int) -> bool:
    """Is a live credential of another device bound to this key?"""
    found = tx.execute(
        """SELECT 1 AS found FROM credentials
        WHERE key_thumbprint = ? AND device_id <> ? AND expires_at > ? AND revoked_at IS NULL LIMIT 1""",
        (key_thumbprint, device_id, now),
    ).fetchone()
    return found is not None


def end_for_device(
    tx: Transaction, device_id: str, *, reason: str, now: int, except_boot: tuple[int, int] | None = None
) -> int:
    """End a device's live credentials, or all but one boot's (reset, restart count); returns how many."""
    where, parameters = "device_id = ?", [device_id]
    if except_boot is None:
        return _end(tx, where, parameters, reason=reason, now=now)
    where += " AND NOT (reset_count = ? AND restart_count = ?)"
    return _end(tx, where, [*parameters, *except_boot], reason=reason, now=now)


def end_for_root(tx: Transaction, root_sha256: str, *, reason: str, now: int) -> int:
    """End the live credentials of every device for which this root vouched; returns how many."""
    return _end(tx, "root_sha256 = ?", [root_sha256], reason=reason, now=now)


def purge(tx: Transaction, before: int) -> int:
    """Forget credentials that expired before that time; the audit still has them. Returns how many."""
    return tx.execute("DELETE FROM credentials WHERE expires_at < ?", (before,)).rowcount


def _issued(row: dict[str, Any]) -> Issued:
    return Issued(**{**row, "resident": bool(row["resident"])})


def _end(tx: Transaction, where: str, parameters: Sequence[Value], *, reason: str, now: int) -> int:
    return tx.execute(
        f"""UPDATE credentials SET revoked_at = ?, revoked_reason = ?
        WHERE {where} AND revoked_at IS NULL AND expires_at > ?""",
        (now, reason, *parameters, now),
    ).rowcount
