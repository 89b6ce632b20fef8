"""Does the proven evidence match the policy?

A pure function of a policy and of values that were verified before. The verdict starts as refused and
`_verdict` alone turns it: nothing was found, and every check that the policy demands did run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from attestd.policy.boot_judge import judge_boot
from attestd.policy.clock import Past, judge_clock, judge_reset
from attestd.policy.component_judge import judge_components
from attestd.policy.document import Policy
from attestd.policy.findings import Finding
from attestd.policy.ima_judge import judge_ima
from attestd.policy.logs import missing_facts
from attestd.policy.proven_boot import ProvenBoot
from attestd.policy.registers import unmeasured
from tpm.ima.verify import VerifiedMeasurements
from tpm.verify.continuity import Continuity
from tpm.verify.pcrs import VerifiedPcrs

Verdict = Literal["accepted", "refused"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was proven: the quoted registers, how this boot follows the last accepted one, its boot id; what
    was booted and what was run, None where no log came. `now` is when it is judged (milliseconds).
    """

    pcrs: VerifiedPcrs
    continuity: Continuity
    boot_id: str | None
    now: int
    boot: ProvenBoot | None = None
    ima: VerifiedMeasurements | None = None
    past: Past | None = None


@dataclass(frozen=True, slots=True)
class Appraisal:
    """`findings` in the order of the checks, registers ascending; `checks` names those that ran."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]


def required_checks(policy: Policy) -> tuple[str, ...]:
    """The checks without which this policy accepts nothing."""
    return (
        "bank",
        *(f"pcr{register}" for register in sorted(policy.pcrs)),
        *(("event_log",) if policy.needs_event_log else ()),
        *(("boot",) if policy.needs_event_log and policy.boot is not None else ()),
        *(f"component:{component.name}" for component in policy.components),
        *(("ima",) if policy.ima is not None else ()),
        "clock",
        "reset",
    )


def missing_registers(policy: Policy, pcrs: VerifiedPcrs) -> tuple[Finding, ...]:
    """What the quote lacks of what the policy needs, its seals included; what it does hold is not judged."""
    if pcrs.bank != policy.bank:
        return (Finding("bank_missing", policy.bank, (policy.bank,), pcrs.bank),)
    return tuple(_missing(policy, register) for register in policy.needed() if register not in pcrs.values)


def missing_logs(
    policy: Policy, pcrs: VerifiedPcrs, boot: ProvenBoot | None, ima: VerifiedMeasurements | None
) -> tuple[Finding, ...]:
    """What the logs lack of what the policy demands; what they do prove is not judged."""
    found = list(missing_facts(policy, pcrs, boot))
    if policy.ima is not None and policy.ima.required and ima is None:
        found.append(Finding("log_missing", "ima_log", ("IMA's list of this boot",)))
    return tuple(found)


def appraise(policy: Policy, evidence: Evidence) -> Appraisal:
    """Judges everything, so that an operator sees all that is wrong at once."""
    findings: list[Finding] = []
    checks: list[str] = []
    # 1. The quote holds what the policy needs, in the policy's bank.
    findings.extend(missing_registers(policy, evidence.pcrs))
    checks.append("bank")
    # 2. Each register that the policy names holds a listed value. Values of another bank cannot be compared.
    if evidence.pcrs.bank == policy.bank:
        for register in sorted(policy.pcrs):
            findings.extend(_judge_register(policy, register, evidence.pcrs))
            checks.append(f"pcr{register}")
    # 3. What was booted and what was run is what the policy names.
    found, ran = _judge_logs(policy, evidence)
    findings.extend(found)
    checks.extend(ran)
    # 4. The TPM's clock and counters did not go back.
    findings.extend(judge_clock(policy.clock, evidence.continuity, evidence.past))
    checks.append("clock")
    # 5. A reset is explained by a new boot, where the policy asks for that.
    findings.extend(judge_reset(policy.clock, evidence.continuity, evidence.boot_id))
    checks.append("reset")
    return Appraisal(_verdict(policy, findings, checks), tuple(findings), tuple(checks))


def _verdict(policy: Policy, findings: Collection[Finding], checks: Collection[str]) -> Verdict:
    """The one place where a verdict becomes "accepted"."""
    verdict: Verdict = "refused"
    if policy.demands and not findings and all(name in checks for name in required_checks(policy)):
        verdict = "accepted"
    return verdict


def _judge_logs(policy: Policy, evidence: Evidence) -> tuple[list[Finding], list[str]]:
    """The objections, and the checks that ran; without its log a check does not run."""
    boot, findings, checks = evidence.boot, list[Finding](), list[str]()
    if policy.needs_event_log:
        findings += missing_facts(policy, evidence.pcrs, boot)
        checks.append("event_log")
    if boot is not None and policy.needs_event_log:
        if policy.boot is not None:
            findings += [one for one in judge_boot(policy.boot, boot) if one not in findings]
            checks.append("boot")
        if policy.components:
            findings += judge_components(policy.components, policy.actions, boot, now=evidence.now)
            checks += [f"component:{component.name}" for component in policy.components]
    if policy.ima is not None:
        if evidence.ima is not None:
            findings += judge_ima(policy.ima, evidence.ima)
        elif policy.ima.required:
            findings.append(Finding("log_missing", "ima_log", ("IMA's list of this boot",)))
        checks.append("ima")
    return findings, checks


def _judge_register(policy: Policy, register: int, pcrs: VerifiedPcrs) -> Iterator[Finding]:
    found = pcrs.values.get(register)
    if found is None:
        return  # step 1 has named it as missing
    if unmeasured(found) and register not in policy.allow_unmeasured:
        yield Finding("pcr_unmeasured", f"pcr{register}", _expected(policy, register), found.hex())
    elif found not in policy.pcrs[register]:
        yield Finding("pcr_unexpected", f"pcr{register}", _expected(policy, register), found.hex())


def _missing(policy: Policy, register: int) -> Finding:
    return Finding("pcr_missing", f"pcr{register}", _expected(policy, register))


def _expected(policy: Policy, register: int) -> tuple[str, ...]:
    """The reference values as the wire writes them; none for a register that only a seal needs."""
    return tuple(value.hex() for value in policy.pcrs.get(register, ()))
