"""Which keys were sealed to a device?

Never the keys themselves: this service keeps no secret that it sealed.
"""

from dataclasses import asdict, dataclass

from attestd.store.engine import Transaction
from attestd.store.rows import insert as insert_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """One sealed key by its public half. Names and digests are lower-case hex."""

    sealed_id: str
    attestation_id: str
    device_id: str
    name: str
    version: int
    kind: str
    parent: str
    """"ek", or the TPM name of the storage key that it was sealed to."""
    policy_digest: str
    public_name: str
    created_at: int


def next_version(tx: Transaction, device_id: str, name: str) -> int:
    """1 for a device's first key of that name. Taken when `insert` follows in the same transaction."""
    row = tx.execute(
        "SELECT MAX(version) AS newest FROM sealed_keys WHERE device_id = ? AND name = ?", (device_id, name)
    ).fetchone()
    return int(row["newest"] or 0) + 1


def insert(tx: Transaction, sealed: Sealed) -> None:
    insert_row(tx, "sealed_keys", asdict(sealed))


def list_for_device(tx: Transaction, device_id: str) -> list[Sealed]:
    """By name, oldest version first."""
    rows = tx.execute(
        "SELECT * FROM sealed_keys WHERE device_id = ? ORDER BY name, version", (device_id,)
    ).fetchall()
    return [Sealed(**row) for row in rows]
