"""Which attestations were begun, and how did each end?

An intent is recorded with the spent nonce, before anything is signed; its end with what was issued. An intent
that never ended belonged to a process that died between the two, and is closed as abandoned.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from attestd.store.canonical import canonical_json
from attestd.store.engine import Row, Transaction
from attestd.store.rows import insert

Ended = Literal["issued", "refused", "conflict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """One attestation.

    Digests are lower-case hex; `outcome` is "open" until it ended; `code` the wire code of a refusal.
    """

    attestation_id: str
    device_id: str
    request_sha256: str
    evidence_sha256: str | None
    outcome: str
    code: str | None
    findings: tuple[Mapping[str, Any], ...]
    policy_name: str | None
    policy_version: int | None
    policy_digest: str | None
    opened_at: int
    finished_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attestation ended. The policy is None where it ended before one was chosen."""

    outcome: Ended
    code: str | None = None
    findings: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    policy_name: str | None = None
    policy_version: int | None = None
    policy_digest: str | None = None


def open_intent(
    tx: Transaction,
    attestation_id: str,
    *,
    device_id: str,
    request_sha256: str,
    evidence_sha256: str | None = None,
    now: int,
) -> None:
    """Record that this attestation goes on to be judged; in the transaction that spends its nonce."""
    intent = {
        "attestation_id": attestation_id,
        "device_id": device_id,
        "request_sha256": request_sha256,
        "evidence_sha256": evidence_sha256,
        "outcome": "open",
        "findings": "[]",
        "opened_at": now,
    }
    insert(tx, "attestations", intent)


def finish(tx: Transaction, attestation_id: str, outcome: Outcome, now: int) -> bool:
    """End it, once.

    False if it is not open any more: abandoned meanwhile, or never begun; then nothing may be issued.
    """
    done = tx.execute(
        """UPDATE attestations SET outcome = ?, code = ?, findings = ?, policy_name = ?, policy_version = ?,
        policy_digest = ?, finished_at = ? WHERE attestation_id = ? AND outcome = 'open'""",
        (
            outcome.outcome,
            outcome.code,
            canonical_json([dict(finding) for finding in outcome.findings]),
            outcome.policy_name,
            outcome.policy_version,
            outcome.policy_digest,
            now,
            attestation_id,
        ),
    )
    return done.rowcount == 1


def abandon_older_than(tx: Transaction, before: int, now: int) -> list[Attestation]:
    """Close the intents that were opened before that time and never ended; returns them, for the audit."""
    rows = tx.execute(
        """UPDATE attestations SET outcome = 'abandoned', finished_at = ?
        WHERE outcome = 'open' AND opened_at < ? RETURNING *""",
        (now, before),
    ).fetchall()
    return sorted((_attestation(row) for row in rows), key=lambda each: (each.opened_at, each.attestation_id))


def get(tx: Transaction, attestation_id: str) -> Attestation | None:
    row = tx.execute("SELECT * FROM attestations WHERE attestation_id = ?", (attestation_id,)).fetchone()
    return None if row is None else _attestation(row)


def last_refusal(tx: Transaction, device_id: str) -> Attestation | None:
    """Why was this device last refused? With all findings, whatever the device itself was told."""
    row = tx.execute(
        """SELECT * FROM attestations WHERE device_id = ? AND outcome = 'refused'
        ORDER BY finished_at DESC, attestation_id DESC LIMIT 1""",
        (device_id,),
    ).fetchone()
    return None if row is None else _attestation(row)


def purge(tx: Transaction, before: int) -> int:
    """Forget what ended before that time, apart from each device's last refusal; returns how many."""
    return tx.execute(
        """DELETE FROM attestations WHERE finished_at < ? AND NOT (outcome = 'refused' AND finished_at = (
            SELECT MAX(other.finished_at) FROM attestations other
            WHERE other.device_id = attestations.device_id AND other.outcome = 'refused'))""",
        (before,),
    ).rowcount


def _attestation(row: Row) -> Attestation:
    return Attestation(**{**row, "findings": tuple(json.loads(row["findings"]))})
