"""What does the audit say of an attestation? Records for a refusal, and for all that was issued."""

from collections.abc import Iterator

from attestd.round.case import Case
from attestd.round.claim import Claim
from attestd.round.judge import Judgement
from attestd.round.mint import Minted
from attestd.store.audit import AuditEvent, Event
from attestd.wire import Problem


def refusal_event(
    claim: Claim, problem: Problem, request_id: str, *, policy: str | None = None
) -> AuditEvent:
    """One record for one refused attestation of a proven device."""
    return AuditEvent(
        event="attest",
        decision="refused",
        code=problem.code,
        cause=problem.cause,
        request_id=request_id,
        device_id=claim.request.device_id,
        policy=policy,
        evidence_sha256=claim.evidence_digest,
    )


def issue_events(case: Case, judgement: Judgement, minted: Minted) -> Iterator[AuditEvent]:
    """One record for the accepted attestation, then one for each credential and each sealed key. No secret,
    no token."""
    yield _accepted(case, judgement, "attest", {"checks": list(judgement.checks)})
    for credential in minted.credentials:
        details = {
            "format": credential.format,
            "agent": credential.agent,
            "spiffe_id": credential.spiffe_id,
            "credential_id": credential.credential_id,
            "expires_at": credential.expires_at,
            "kid": credential.kid,
        }
        yield _accepted(case, judgement, "issue", details)
    for sealed in minted.sealed_keys:
        details = {
            "sealed_key": sealed.name,
            "kind": sealed.kind,
            "parent": sealed.parent,
            "public_name": sealed.public_name,
        }
        yield _accepted(case, judgement, "issue", details)


def _accepted(case: Case, judgement: Judgement, event: Event, details: dict[str, object]) -> AuditEvent:
    return AuditEvent(
        event=event,
        decision="accepted",
        request_id=case.request_id,
        device_id=case.device.device_id,
        policy=judgement.policy.label,
        evidence_sha256=case.claim.evidence_digest,
        details={"attestation_id": case.attestation_id, **details},
    )
