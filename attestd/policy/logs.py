"""Which logs does the policy need, and does what came prove what it must?"""

from __future__ import annotations

from collections.abc import Iterator

from attestd.policy.boot_judge import UNPROVEN, judge_boot
from attestd.policy.document import Policy
from attestd.policy.findings import Finding
from attestd.policy.proven_boot import ProvenBoot
from attestd.policy.registers import unmeasured
from tpm.verify.pcrs import VerifiedPcrs


def missing_facts(policy: Policy, pcrs: VerifiedPcrs, boot: ProvenBoot | None) -> tuple[Finding, ...]:
    """What the policy demands of the log and the log does not prove; it says nothing against the machine."""
    if not policy.needs_event_log:
        return ()
    # 1. There is a log that holds.
    if boot is None:
        return (Finding("log_missing", "event_log", ("the event log of this boot",)),)
    # 2. It replays to each register from which the policy takes facts.
    found = list(_unreplayed(policy, pcrs, boot))
    # 3. The facts that the policy demands are in it.
    if policy.boot is not None:
        found += [finding for finding in judge_boot(policy.boot, boot) if finding.code == UNPROVEN]
    return tuple(found)


def _unreplayed(policy: Policy, pcrs: VerifiedPcrs, boot: ProvenBoot) -> Iterator[Finding]:
    for register in sorted(policy.told_by_log()):
        value = pcrs.values.get(register)
        if value is None or register in boot.log.registers or unmeasured(value):
            continue  # not quoted is another finding; a register without events was never extended
        yield Finding("log_replay", f"pcr{register}", ("a log that tells of this register",), value.hex())
