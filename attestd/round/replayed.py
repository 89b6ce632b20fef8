"""Do the logs tell the history of the quoted registers?"""

from collections.abc import Iterator
from dataclasses import dataclass

from attestd.log_cache import LogCache
from attestd.policy.document import Policy
from attestd.policy.findings import Finding
from attestd.policy.proven_boot import ProvenBoot
from attestd.round.logs import BootLog, Logs
from tpm.errors import AttestationError, EvidenceError
from tpm.eventlog.compare import compare, divergence, known_userspace, verify_log
from tpm.eventlog.replay import replay
from tpm.ima.aggregate import aggregated
from tpm.ima.replay import REGISTER as IMA_REGISTER
from tpm.ima.verify import VerifiedMeasurements, verify_measurements
from tpm.structures.algorithms import hash_by_name
from tpm.verify.pcrs import VerifiedPcrs

_TELLS_NOTHING = frozenset({"log_bank_missing", "log_empty", "log_format"})
"""Logs that say nothing of the quoted bank: nothing is proven by them, nor is anything false."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the logs prove, and what is wrong with them."""

    boot: ProvenBoot | None
    ima: VerifiedMeasurements | None
    findings: tuple[Finding, ...]


def replay_logs(cache: LogCache, logs: Logs, pcrs: VerifiedPcrs, policy: Policy | None) -> Replayed:
    """The event log whenever it came; IMA's list where the policy judges it."""
    findings: list[Finding] = []
    boot: ProvenBoot | None = None
    ima: VerifiedMeasurements | None = None
    if logs.boot is not None:
        try:
            boot = _prove_boot(cache, logs.boot, pcrs)
        except EvidenceError as error:
            if error.reason not in _TELLS_NOTHING or (policy is not None and policy.needs_event_log):
                findings += _explained(error, logs.boot, pcrs)
    if logs.ima is not None and policy is not None and policy.ima is not None:
        try:
            ima = _prove_ima(logs, logs.ima, pcrs, boot, policy)
        except AttestationError as error:
            findings.append(Finding(error.reason, "ima_log", (), error.detail))
    return Replayed(boot, ima, tuple(findings))


def _prove_boot(cache: LogCache, sent: BootLog, pcrs: VerifiedPcrs) -> ProvenBoot:
    # The log of a confidential machine's own registers is no TPM's.
    if sent.log.format == "ccel":
        raise EvidenceError("log_format", "The log is that of RTMRs, not of a TPM's registers.")
    # IMA's register moves with every file that is run: it counts only where the log tells of it as well.
    also = _tells_of_ima(sent)
    quoted = tuple(item for item in pcrs.values.items() if also or item[0] != IMA_REGISTER)
    key = ("boot", sent.digest, sent.userspace_digest, pcrs.bank, quoted)
    return cache.get(
        key, sent.size, lambda: ProvenBoot.of(verify_log(sent.log, pcrs, userspace=sent.userspace))
    )


def _tells_of_ima(sent: BootLog) -> bool:
    firmware = any(event.register == IMA_REGISTER for event in sent.log.events)
    records = () if sent.userspace is None else sent.userspace.records
    return firmware or any(record.register == IMA_REGISTER for record in records)


def _prove_ima(
    logs: Logs, raw: bytes, pcrs: VerifiedPcrs, boot: ProvenBoot | None, policy: Policy
) -> VerifiedMeasurements:
    # The policy may have changed since the mark was read: what came before this part was not judged by it.
    if logs.ima_from and logs.mark_policy != policy.digest:
        raise EvidenceError("ima_gap", "Another policy judged the list so far; send all of it.")
    known = logs.mark if logs.mark_bank == pcrs.bank else None
    return verify_measurements(raw, pcrs, first=logs.ima_from, known=known, at_boot=_at_boot(boot, pcrs))


def _at_boot(boot: ProvenBoot | None, pcrs: VerifiedPcrs) -> dict[int, bytes]:
    """What the registers held when IMA began, of those that userspace extended since."""
    if boot is None or boot.log.userspace is None:
        return {}
    since = {record.register for record in boot.log.userspace.records}
    wanted = since & set(aggregated(hash_by_name(pcrs.bank))) & boot.log.registers
    if not wanted:
        return {}
    before = replay(boot.log.log).banks[pcrs.bank]
    zeros = bytes(hash_by_name(pcrs.bank).size)
    return {register: before.get(register, zeros) for register in wanted if register is not None}


def _explained(error: EvidenceError, sent: BootLog, pcrs: VerifiedPcrs) -> Iterator[Finding]:
    """A finding for each register that does not hold what the log says, with the event at which they part."""
    userspace = known_userspace(sent.log, pcrs, sent.userspace)
    values = replay(sent.log, userspace).banks.get(pcrs.bank)
    if error.reason != "log_replay" or values is None:
        yield Finding(error.reason, "event_log", (pcrs.bank,), error.detail)
        return
    for register, state in compare(values, pcrs.values).items():
        if state == "mismatch" and register != IMA_REGISTER:
            quoted = pcrs.values[register]
            where = divergence(sent.log, pcrs.bank, register, quoted, userspace=userspace)
            expected = (values[register].hex(),)
            yield Finding("log_replay", f"pcr{register}", expected, quoted.hex(), where.event, where.detail)
