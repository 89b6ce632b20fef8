"""Is the proven evidence whole, is it newer than what was judged before, and does the policy accept it?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attestd.log_cache import LogCache
from attestd.policy.active import ActivePolicy
from attestd.policy.appraise import Appraisal, Evidence, appraise, missing_logs, missing_registers
from attestd.policy.choose import NoPolicy, Subject, choose_policy
from attestd.policy.clock import Past
from attestd.policy.findings import Finding, disclosed
from attestd.round.case import Case
from attestd.round.claim import Claim, ClaimedKey
from attestd.round.prove import Proven
from attestd.round.replayed import Replayed, replay_logs
from attestd.store.devices import Device
from attestd.wire import Problem
from tpm.errors import AttestationError, EvidenceError
from tpm.ima.verify import VerifiedMeasurements
from tpm.verify.certified import VerifiedKey, verify_certified_key, verify_key_proof
from tpm.verify.continuity import Continuity, judge_continuity
from tpm.verify.pcrs import VerifiedPcrs, verify_pcrs

# A key that is not what it should be lives elsewhere or may do more; every other fault leaves it unproven.
_NOT_RESIDENT = frozenset({"key_attributes", "key_scheme", "parent_attributes", "weak_key", "bad_key"})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, in full; `refusal` is the Problem to answer with, None where everything is accepted."""

    pcrs: VerifiedPcrs | None
    keys: Mapping[bytes, VerifiedKey]
    chosen: ActivePolicy | None
    continuity: Continuity | None
    ima: VerifiedMeasurements | None
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    refusal: Problem | None

    @property
    def policy(self) -> ActivePolicy:
        """The policy that accepted; there is none otherwise."""
        assert self.chosen is not None
        return self.chosen

    def require_acceptance(self) -> None:
        """Raise the refusal, if there is one."""
        if self.refusal is not None:
            raise self.refusal


def judge(case: Case, cache: LogCache, *, now: int) -> Judgement:
    """Every check in the order of the protocol; the first kind of fault decides the answer, and all of that
    kind are told."""
    claim, proven = case.claim, case.proven
    chosen, no_policy = _choose(case)
    # 1. Registers, certified keys and their proofs are whole, and the logs tell the registers' history.
    pcrs, keys, lacking = _whole(claim, proven, chosen)
    told = Replayed(None, None, ())
    if pcrs is not None:
        told = _replay(case, cache, pcrs, chosen)
        lacking.extend(told.findings)
    if lacking or pcrs is None:
        return Judgement(pcrs, keys, chosen, None, None, tuple(lacking), (), _incomplete(lacking, chosen))
    # 2. It is newer than what was judged before.
    if is_stale(proven, case.device):
        detail = "Newer evidence of this device was judged already; ask for a new challenge."
        stale = Problem("conflict", detail, cause="stale_evidence")
        return Judgement(pcrs, keys, chosen, None, None, (), (), stale)
    continuity = judge_continuity(case.device.baseline, proven.quote, claim.request.boot_id)
    # 3. One policy covers the device, and accepts.
    if chosen is None:
        return Judgement(pcrs, keys, None, continuity, None, (), (), no_policy)
    past = Past(case.device.baseline, proven.quote.quote)
    evidence = Evidence(pcrs, continuity, claim.request.boot_id, now, told.boot, told.ima, past)
    appraisal = appraise(chosen.document, evidence)
    refusal = None if appraisal.verdict == "accepted" else _rejected(appraisal, chosen)
    return Judgement(pcrs, keys, chosen, continuity, told.ima, appraisal.findings, appraisal.checks, refusal)


def _replay(case: Case, cache: LogCache, pcrs: VerifiedPcrs, chosen: ActivePolicy | None) -> Replayed:
    """What the logs prove, and what they lack of what the policy demands, if nothing is wrong already."""
    if chosen is None or pcrs.bank != chosen.document.bank:
        return replay_logs(cache, case.logs, pcrs, None)
    policy = chosen.document
    told = replay_logs(cache, case.logs, pcrs, policy)
    return told if told.findings else replace(told, findings=missing_logs(policy, pcrs, told.boot, told.ima))


def is_stale(proven: Proven, device: Device) -> bool:
    """Older than the last judged quote of this boot, or of an earlier boot and possibly made before that
    quote was judged."""
    clock = proven.quote.quote.clock
    boot = (clock.reset_count, clock.restart_count)
    # 1. Within one boot its clock alone tells.
    accepted = (device.reset_count, device.restart_count, device.clock)
    judged = (device.judged_reset, device.judged_restart, device.judged_clock)
    if any(known[:2] == boot and clock.clock < (known[2] or 0) for known in (accepted, judged)):
        return True
    # 2. Counters that went back are a cleared TPM's only if the quote is newer than what was judged.
    older_nonce = device.judged_at is not None and proven.issued_at <= device.judged_at
    if device.judged_reset is None or device.judged_restart is None:
        return older_nonce
    return boot < (device.judged_reset, device.judged_restart) and older_nonce


def _choose(case: Case) -> tuple[ActivePolicy | None, Problem | None]:
    device = case.device
    subject = Subject(device.device_id, device.labels, device.manufacturer)
    try:
        document = choose_policy(case.policies.documents, subject)
    except NoPolicy as error:
        finding = {"code": "no_policy", "subject": "policy", "expected": ["one"], "found": error.reason}
        return None, Problem(
            "no_policy", f"{error.detail}.", cause=f"policy_{error.reason}", findings=[finding]
        )
    return case.policies.active(document), None


def _whole(
    claim: Claim, proven: Proven, chosen: ActivePolicy | None
) -> tuple[VerifiedPcrs | None, Mapping[bytes, VerifiedKey], list[Finding]]:
    lacking: list[Finding] = []
    pcrs = None
    try:
        pcrs = verify_pcrs(proven.quote, claim.pcrs, hash=proven.ak.hash)
    except EvidenceError as error:
        lacking.append(Finding(error.reason, "pcrs", (), error.detail))
    if pcrs is not None and chosen is not None:
        lacking.extend(missing_registers(chosen.document, pcrs))
    keys: dict[bytes, VerifiedKey] = {}
    for name, claimed in claim.certified.items():
        try:
            keys[name] = _verify_key(claim, proven, claimed)
        except AttestationError as error:
            code = "key_not_resident" if error.reason in _NOT_RESIDENT else "key_not_proven"
            lacking.append(Finding(code, name.hex(), (), error.reason))
    lacking.extend(_unproven_names(claim, keys))
    return pcrs, keys, lacking


def _verify_key(claim: Claim, proven: Proven, claimed: ClaimedKey) -> VerifiedKey:
    """The TPM holds it, for this request; who asks can use it, for this request."""
    if isinstance(claimed.certification, EvidenceError):
        raise claimed.certification
    key = verify_certified_key(
        claimed.certification,
        claimed.signature,
        claimed.public,
        ak=proven.ak,
        expected_extra_data=claim.request_digest,
        expected_signers=proven.signers,
    )
    if key.role == "signing" and claimed.proof is None:
        raise EvidenceError("proof_missing", "the key's proof over the request is missing")
    if claimed.proof is not None:
        verify_key_proof(key, claimed.proof, message=claim.request_bytes)
    return key


def _unproven_names(claim: Claim, keys: Mapping[bytes, VerifiedKey]) -> list[Finding]:
    """Keys that the request names and that are not certified, or are not of the kind that is needed there."""
    found = []
    wanted = [(name, "signing") for name in claim.keys if isinstance(name, bytes)]
    wanted += [(name, "parent") for name in claim.parents if name is not None]
    for name, role in wanted:
        if name not in claim.certified:
            found.append(Finding("key_not_proven", name.hex(), (), "certificate_missing"))
        elif name in keys and keys[name].role != role:
            found.append(Finding("key_not_resident", name.hex(), (role,), keys[name].role))
    return found


def _incomplete(findings: list[Finding], chosen: ActivePolicy | None) -> Problem:
    disclose = "codes" if chosen is None else chosen.document.disclose
    told = disclosed(findings, disclose)
    detail = "The quote is this device's, but what came with it is missing, damaged or does not fit."
    return Problem("evidence_incomplete", detail, cause=findings[0].code, findings=told)


def _rejected(appraisal: Appraisal, chosen: ActivePolicy) -> Problem:
    told = disclosed(appraisal.findings, chosen.document.disclose)
    detail = f"The policy {chosen.document.name}@{chosen.version} does not accept how this device booted."
    return Problem("posture_rejected", detail, cause=appraisal.findings[0].code, findings=told)
