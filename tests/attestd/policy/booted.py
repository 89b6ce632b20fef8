"""What does the appraisal say of a boot, under a policy?"""

import hashlib
from types import MappingProxyType

from attestd.policy.appraise import Appraisal, Evidence, appraise, missing_logs
from attestd.policy.document import Policy
from attestd.policy.findings import Finding
from attestd.policy.proven_boot import ProvenBoot
from tests import recorded
from tests.attestd.policy.documents import load
from tests.tpm.eventlog.logs import LogMaker
from tpm.eventlog.compare import verify_log
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import read_userspace
from tpm.verify.continuity import Continuity
from tpm.verify.pcrs import VerifiedPcrs

SAME = Continuity("same_boot", True)


def policy(text: str) -> Policy:
    return load('name = "edge"\ndisclose = "findings"\n' + text)


def recorded_boot() -> tuple[VerifiedPcrs, ProvenBoot]:
    """The recorded machine, its logs replayed."""
    values = {one: value for one, value in recorded.registers().items() if one != 10}
    pcrs = VerifiedPcrs("sha256", MappingProxyType(values))
    userspace = read_userspace(recorded.userspace_log())
    return pcrs, ProvenBoot.of(verify_log(read_log(recorded.EVENT_LOG), pcrs, userspace=userspace))


def made_boot(log: LogMaker) -> tuple[VerifiedPcrs, ProvenBoot]:
    """A machine that measured this log; registers that it does not extend hold zeros."""
    read = log.read()
    values = {one: bytes(32) for one in range(16)} | dict(replay(read).banks["sha256"])
    pcrs = VerifiedPcrs("sha256", MappingProxyType(values))
    return pcrs, ProvenBoot.of(verify_log(read, pcrs))


def judged(text: str, machine: tuple[VerifiedPcrs, ProvenBoot | None], *, now: int = 0) -> Appraisal:
    pcrs, boot = machine
    return appraise(policy(text), Evidence(pcrs, SAME, "boot", now, boot))


def lacking(text: str, machine: tuple[VerifiedPcrs, ProvenBoot | None]) -> tuple[Finding, ...]:
    return missing_logs(policy(text), *machine, None)


def codes(
    text: str, machine: tuple[VerifiedPcrs, ProvenBoot | None], *, now: int = 0
) -> list[tuple[str, str]]:
    """Code and subject of each finding; accepted exactly if there is none."""
    appraisal = judged(text, machine, now=now)
    assert (appraisal.verdict == "accepted") == (not appraisal.findings)
    return [(finding.code, finding.subject) for finding in appraisal.findings]


def hexadecimal(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
