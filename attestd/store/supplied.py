"""Which EK certificate did the operator supply for a TPM that has none in its memory?"""

import json
from base64 import b64decode
from dataclasses import asdict, dataclass

from attestd.store.engine import Transaction
from attestd.store.rows import columns, insert


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppliedCertificate:
    """The certificate and its chain (DER), from whom, and when (milliseconds)."""

    device_id: str
    certificate: bytes
    chain: tuple[bytes, ...]
    supplied_by: str
    supplied_at: int


def put(tx: Transaction, supplied: SuppliedCertificate) -> None:
    """In place of the one that was supplied before."""
    tx.execute("DELETE FROM supplied_certificates WHERE device_id = ?", (supplied.device_id,))
    insert(tx, "supplied_certificates", columns(asdict(supplied)))


def find(tx: Transaction, device_id: str) -> SuppliedCertificate | None:
    row = tx.execute("SELECT * FROM supplied_certificates WHERE device_id = ?", (device_id,)).fetchone()
    if row is None:
        return None
    values = dict(row)
    values["chain"] = tuple(b64decode(each) for each in json.loads(values["chain"]))
    return SuppliedCertificate(**values)
