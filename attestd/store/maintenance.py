"""What must be done to the store every few seconds, whoever asks for what?"""

from collections.abc import Sequence
from dataclasses import dataclass

from attestd.store import attestations, credentials, devices, enrollments, meta, nonces, quarantine, tokens
from attestd.store.audit import AuditEvent, HeadSigner, append, append_all
from attestd.store.audit_counter import CountedRefusals
from attestd.store.engine import Transaction
from attestd.store.store import Store

INTENT_SECONDS = 60
CREDENTIAL_DAYS = 30
TOKEN_DAYS = 30
ATTESTATION_DAYS = 30
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done; for the log and the metrics."""

    clock_went_back: bool
    abandoned: int
    pending_forgotten: int
    purged: int


def maintain(
    store: Store,
    signer: HeadSigner,
    *,
    now: int,
    skew_seconds: int,
    pending_seconds: int,
    counted: CountedRefusals | None = None,
) -> Maintained:
    """Close what was left open, forget what has expired, record what was counted.

    Several processes may do it at once.

    Nothing is forgotten by a clock that went back: what looks expired then may not be.
    """
    if counted is not None:
        counted.flush(
            now, lambda events: store.write(lambda tx: append_all(tx, signer, events, chain=None, now=now))
        )
    if not store.write(lambda tx: meta.advance_time(tx, now, skew_seconds * 1000)):
        return Maintained(True, 0, 0, 0)
    abandoned = store.write(lambda tx: _close_intents(tx, signer, now))
    forgotten = store.write(lambda tx: _forget_pending(tx, signer, now - pending_seconds * 1000, now))
    return Maintained(False, abandoned, forgotten, store.write(lambda tx: _purge(tx, now)))


def _close_intents(tx: Transaction, signer: HeadSigner, now: int) -> int:
    """An intent without an end belonged to a process that died; nothing was handed out for it."""
    abandoned = attestations.abandon_older_than(tx, now - INTENT_SECONDS * 1000, now)
    for each in abandoned:
        event = AuditEvent(
            event="attest",
            decision="refused",
            code="unavailable",
            cause="abandoned",
            device_id=each.device_id,
            evidence_sha256=each.evidence_sha256,
            details={"attestation_id": each.attestation_id},
        )
        append(tx, signer, event, chain=each.device_id, now=now)
    return len(abandoned)


def _forget_pending(tx: Transaction, signer: HeadSigner, before: int, now: int) -> int:
    forgotten = devices.delete_pending_older_than(tx, before)
    for device_id in forgotten:
        event = AuditEvent(event="admin", decision="accepted", cause="pending_expired", device_id=device_id)
        append(tx, signer, event, chain=device_id, now=now)
    return len(forgotten)


def _purge(tx: Transaction, now: int) -> int:
    done: Sequence[int] = (
        nonces.purge(tx, now),
        enrollments.purge(tx, now),
        credentials.purge(tx, now - CREDENTIAL_DAYS * _DAY_MS),
        tokens.purge(tx, now - TOKEN_DAYS * _DAY_MS),
        attestations.purge(tx, now - ATTESTATION_DAYS * _DAY_MS),
        quarantine.purge(tx, now - quarantine.KEEP_MS),
    )
    return sum(done)
