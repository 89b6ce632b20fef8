"""What came of it? The second transaction: the outcome with its audit, and only if what was judged still
stands."""

import secrets

from attestd.policy.findings import to_wire
from attestd.round.account import issue_events, refusal_event
from attestd.round.case import Case
from attestd.round.judge import Judgement, is_stale
from attestd.round.kept_logs import keep_logs
from attestd.round.mint import Minted, MintedSeal
from attestd.service import Service
from attestd.store import attestations, audit, credentials, devices, meta, policies, sealed_keys, signing_keys
from attestd.store.attestations import Ended, Outcome
from attestd.store.canonical import canonical_json
from attestd.store.credentials import Issued
from attestd.store.devices import Device, Mark, Posture
from attestd.store.engine import Transaction
from attestd.store.sealed_keys import Sealed
from attestd.wire import Problem
from tpm.verify.continuity import Baseline


def refuse_case(
    service: Service, case: Case, judgement: Judgement | None, problem: Problem, *, now: int
) -> None:
    """The refusal with everything that was found, whatever the device is told. A refused posture ends earlier
    credentials."""
    found = () if judgement is None else judgement.findings
    chosen = None if judgement is None else judgement.chosen
    outcome = Outcome(
        outcome="conflict" if problem.code == "conflict" else "refused",
        code=problem.code,
        findings=[to_wire(finding) for finding in found] or list(problem.findings or ()),
        policy_name=None if chosen is None else chosen.document.name,
        policy_version=None if chosen is None else chosen.version,
        policy_digest=None if chosen is None else chosen.document.digest,
    )
    event = refusal_event(
        case.claim, problem, case.request_id, policy=None if chosen is None else chosen.label
    )

    signer = service.audit_signer(now)

    def refuse(tx: Transaction) -> None:
        device = devices.find(tx, case.device.device_id)
        judged = problem.code in ("no_policy", "posture_rejected", "not_entitled")
        if judged and device is not None and _still_speaks(device, case):
            _move_mark(tx, device, case, problem, now=now)
        attestations.finish(tx, case.attestation_id, outcome, now)
        audit.append(tx, signer, event, chain=case.device.device_id, now=now)

    service.store.write(refuse)
    problem.recorded, problem.device_id = True, case.device.device_id


def _move_mark(tx: Transaction, device: Device, case: Case, problem: Problem, *, now: int) -> None:
    """What was judged becomes the mark below which evidence is stale; it never moves back."""
    if is_stale(case.proven, device):
        return
    posture = None
    if problem.code == "posture_rejected":
        posture = Posture(
            posture="refused", posture_attestation=case.attestation_id, posture_at=now, posture_until=None
        )
        credentials.end_for_device(tx, device.device_id, reason="posture_rejected", now=now)
    devices.record_judged(tx, device.device_id, _mark(case, now=now), now=now, posture=posture)


def _mark(case: Case, *, now: int) -> Mark:
    clock = case.proven.quote.quote.clock
    return Mark(
        judged_reset=clock.reset_count,
        judged_restart=clock.restart_count,
        judged_clock=clock.clock,
        judged_at=now,
    )


# --- issued -------------------------------------------------------------------------------------


def issue_case(
    service: Service, case: Case, judgement: Judgement, minted: Minted, *, now: int
) -> tuple[int, ...]:
    """Record all that was signed, durably, before it leaves; the versions of the sealed keys. `conflict`
    drops all of it."""

    signer = service.audit_signer(now)
    device_id = case.device.device_id

    def issue(tx: Transaction) -> tuple[int, ...] | Problem:
        device = devices.find(tx, device_id)
        problem = _changed(tx, device, case, judgement, minted) or _reused(tx, device_id, minted, now=now)
        if problem is not None:
            ended: Ended = "conflict" if problem.code == "conflict" else "refused"
            attestations.finish(tx, case.attestation_id, Outcome(outcome=ended, code=problem.code), now)
            event = refusal_event(case.claim, problem, case.request_id, policy=judgement.policy.label)
            audit.append(tx, signer, event, chain=device_id, now=now)
            return problem
        _keep_device(tx, case, minted, now=now)
        keep_logs(tx, case, judgement, now=now)
        _keep_credentials(tx, case, judgement, minted, now=now)
        versions = tuple(_keep_seal(tx, case, sealed, now=now) for sealed in minted.sealed_keys)
        attestations.finish(tx, case.attestation_id, _issued(judgement), now)
        events = list(issue_events(case, judgement, minted))
        audit.append_all(tx, signer, events, chain=device_id, now=now)
        return versions

    outcome = service.store.write(issue)
    if isinstance(outcome, Problem):
        outcome.recorded, outcome.device_id = True, case.device.device_id
        raise outcome
    return outcome


def _changed(
    tx: Transaction, device: Device | None, case: Case, judgement: Judgement, minted: Minted
) -> Problem | None:
    """Device state, key, labels, policy and boot are still those that were judged, and every key that signed
    still signs."""
    policy = judgement.policy
    attestation = attestations.get(tx, case.attestation_id)
    unchanged = (
        device is not None
        and attestation is not None
        and attestation.outcome == "open"
        and _still_speaks(device, case)
        and not is_stale(case.proven, device)
        and policies.is_active(tx, policy.document.name, policy.version)
        and meta.policy_generation(tx) == case.policies.generation
        and all(signing_keys.note_expiry(tx, kid, ends) for kid, ends in _last_signed(minted).items())
    )
    if unchanged:
        return None
    detail = "The device, its policy or a signing key changed while it was judged; ask for a new challenge."
    return Problem("conflict", detail, cause="changed_meanwhile")


def _reused(tx: Transaction, device_id: str, minted: Minted, *, now: int) -> Problem | None:
    """A key to which another device's living credential is bound would make two devices one."""
    for index, credential in enumerate(minted.credentials):
        key = credential.key
        if key is not None and credentials.bound_elsewhere(tx, key.thumbprint, device_id, now=now):
            detail = "Another device's credential is bound to this key; make a new key."
            pointer = f"/credentials/{index}/key"
            return Problem("identity_bound", detail, pointer=pointer, cause="key_reuse")
    return None


def _still_speaks(device: Device, case: Case) -> bool:
    judged = case.device
    same_identity = (device.state, device.ak_public, device.name) == (
        judged.state,
        judged.ak_public,
        judged.name,
    )
    same_boot = (device.reset_count, device.restart_count) == (judged.reset_count, judged.restart_count)
    return same_identity and same_boot and dict(device.labels) == dict(judged.labels)


def _last_signed(minted: Minted) -> dict[str, int]:
    """When the last thing ends that each key signed here."""
    ends = {minted.result_kid: minted.posture_until}
    for credential in minted.credentials:
        ends[credential.kid] = max(ends.get(credential.kid, 0), credential.expires_at)
    return ends


def _keep_device(tx: Transaction, case: Case, minted: Minted, *, now: int) -> None:
    quote = case.proven.quote.quote
    baseline = Baseline(
        reset_count=quote.clock.reset_count,
        restart_count=quote.clock.restart_count,
        clock=quote.clock.clock,
        firmware_version=quote.firmware_version,
        boot_id=case.claim.request.boot_id,
        safe=quote.clock.safe,
    )
    posture = Posture(
        posture="accepted",
        posture_attestation=case.attestation_id,
        posture_at=now,
        posture_until=minted.posture_until,
    )
    device_id = case.device.device_id
    devices.record_judged(tx, device_id, _mark(case, now=now), now=now, posture=posture, baseline=baseline)
    # What rests on an earlier boot is dead from here on.
    boot = (baseline.reset_count, baseline.restart_count)
    credentials.end_for_device(tx, device_id, reason="boot_ended", now=now, except_boot=boot)


def _keep_credentials(tx: Transaction, case: Case, judgement: Judgement, minted: Minted, *, now: int) -> None:
    clock, policy = case.proven.quote.quote.clock, judgement.policy
    issued = [
        Issued(
            credential_id=credential.credential_id,
            attestation_id=case.attestation_id,
            device_id=case.device.device_id,
            agent=credential.agent,
            format=credential.format,
            spiffe_id=credential.spiffe_id,
            key_thumbprint=None if credential.key is None else credential.key.thumbprint,
            issued_at=now,
            expires_at=credential.expires_at,
            reset_count=clock.reset_count,
            restart_count=clock.restart_count,
            policy_name=policy.document.name,
            policy_version=policy.version,
            root_sha256=case.device.root_sha256,
            key_jwk=None if credential.key is None else canonical_json(credential.key.members),
            resident=credential.resident,
        )
        for credential in minted.credentials
    ]
    credentials.insert_all(tx, issued)


def _keep_seal(tx: Transaction, case: Case, sealed: MintedSeal, *, now: int) -> int:
    version = sealed_keys.next_version(tx, case.device.device_id, sealed.name)
    row = Sealed(
        sealed_id=secrets.token_hex(16),
        attestation_id=case.attestation_id,
        device_id=case.device.device_id,
        name=sealed.name,
        version=version,
        kind=sealed.kind,
        parent=sealed.parent,
        policy_digest=sealed.policy_digest.hex(),
        public_name=sealed.public_name,
        created_at=now,
    )
    sealed_keys.insert(tx, row)
    return version


def _issued(judgement: Judgement) -> Outcome:
    policy = judgement.policy
    return Outcome(
        outcome="issued",
        policy_name=policy.document.name,
        policy_version=policy.version,
        policy_digest=policy.document.digest,
    )
