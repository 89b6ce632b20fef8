"""Does the proven evidence match the policy?

A pure function of a policy and of values that were verified before. The verdict starts as refused and
`_verdict` alone turns it: nothing was found, and every check that the policy demands did run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from attestd.policy.document import Policy
from attestd.policy.findings import Finding
from attestd.policy.registers import unmeasured
from tpm.verify.continuity import Continuity
from tpm.verify.pcrs import VerifiedPcrs

Verdict = Literal["accepted", "refused"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was proven: the quoted registers, how this boot follows the last accepted one, its boot id."""

    pcrs: VerifiedPcrs
    continuity: Continuity
    boot_id: str | None


@dataclass(frozen=True, slots=True)
class Appraisal:
    """`findings` in the order of the checks, registers ascending; `checks` names those that ran."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]


def required_checks(policy: Policy) -> tuple[str, ...]:
    """The checks without which this policy accepts nothing."""
    return ("bank", *(f"pcr{register}" for register in sorted(policy.pcrs)), "clock", "reset")


def missing_registers(policy: Policy, pcrs: VerifiedPcrs) -> tuple[Finding, ...]:
    """What the quote lacks of what the policy needs, its seals included; what it does hold is not judged."""
    if pcrs.bank != policy.bank:
        return (Finding("bank_missing", policy.bank, (policy.bank,), pcrs.bank),)
    return tuple(_missing(policy, register) for register in policy.needed() if register not in pcrs.values)


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
    # 3. The TPM's clock and counters did not go back.
    findings.extend(_judge_clock(evidence.continuity))
    checks.append("clock")
    # 4. A reset is explained by a new boot, where the policy asks for that.
    findings.extend(_judge_reset(policy, evidence))
    checks.append("reset")
    return Appraisal(_verdict(policy, findings, checks), tuple(findings), tuple(checks))


def _verdict(policy: Policy, findings: Collection[Finding], checks: Collection[str]) -> Verdict:
    """The one place where a verdict becomes "accepted"."""
    verdict: Verdict = "refused"
    if policy.pcrs and not findings and all(name in checks for name in required_checks(policy)):
        verdict = "accepted"
    return verdict


def _judge_register(policy: Policy, register: int, pcrs: VerifiedPcrs) -> Iterator[Finding]:
    found = pcrs.values.get(register)
    if found is None:
        return  # step 1 has named it as missing
    if unmeasured(found) and register not in policy.allow_unmeasured:
        yield Finding("pcr_unmeasured", f"pcr{register}", _expected(policy, register), found.hex())
    elif found not in policy.pcrs[register]:
        yield Finding("pcr_unexpected", f"pcr{register}", _expected(policy, register), found.hex())


def _judge_clock(continuity: Continuity) -> Iterator[Finding]:
    match continuity.kind:
        case "first" | "same_boot" | "restart" | "reset":
            return
        case "stale" | "rollback":
            yield Finding("clock_rollback", "clock", ("same_boot", "restart", "reset"), continuity.kind)
        case _:
            raise ValueError(f"a continuity of kind {continuity.kind!r} is not one that this appraisal knows")


def _judge_reset(policy: Policy, evidence: Evidence) -> Iterator[Finding]:
    continuity = evidence.continuity
    if policy.on_reset == "accept" or continuity.kind not in ("restart", "reset"):
        return
    if not continuity.explained:
        yield Finding("reset_unexplained", "clock", ("a new boot id",), evidence.boot_id)


def _missing(policy: Policy, register: int) -> Finding:
    return Finding("pcr_missing", f"pcr{register}", _expected(policy, register))


def _expected(policy: Policy, register: int) -> tuple[str, ...]:
    """The reference values as the wire writes them; none for a register that only a seal needs."""
    return tuple(value.hex() for value in policy.pcrs.get(register, ()))
