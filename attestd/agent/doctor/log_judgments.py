"""Can this machine show what it booted and ran, and is it what its TPM holds?"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from attestd.agent.doctor.check import Check, Unread
from attestd.agent.doctor.log_readings import LogReading
from attestd.agent.errors import plain
from tpm.errors import StructureError
from tpm.eventlog.compare import divergence, replayed_states
from tpm.eventlog.events import EventLog
from tpm.eventlog.phases import REGISTER as PHASES_REGISTER
from tpm.eventlog.phases import infer_phases
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import UserspaceLog, read_userspace
from tpm.ima.measurements import read_records

Registers = Mapping[str, Mapping[int, bytes]]

_IMA = 10
_EXPLAINED = 3
"""Registers that are told one by one; the others are listed."""
_RIGHTS = "run as root, or with CAP_DAC_READ_SEARCH, as attestd-agent.service does"
_REPORT = "restart the machine; if it stays so, leave these registers out of the policy and tell the maker"


def judge_event_log(logs: LogReading, registers: Registers | Unread, *, tcti: str) -> Iterator[Check]:
    """Can it be read, and does it replay to the TPM's own registers?"""
    name, raw = "event log", logs.event_log
    if isinstance(raw, Unread) or not raw:
        if raw is not None:
            yield _absent(
                name, raw, logs.files.event_log, "policies that judge boot events refuse this machine"
            )
        return
    try:
        log = read_log(raw)
    except StructureError as error:
        yield Check(name, "fail", error.detail, "update the firmware; policies of registers alone still work")
        return
    said = f"{len(log.events)} events"
    if isinstance(registers, Unread) or not registers:
        why = plain(registers.why) if isinstance(registers, Unread) else "it has no bank in use"
        yield Check(name, "warn", f"{said}, not compared with the TPM: {why}", "see tpm")
        return
    (bank, values), *_ = registers.items()
    yield _compared(name, log, _userspace(logs), bank, values, local=tcti.startswith("device"))


def _compared(
    name: str,
    log: EventLog,
    userspace: UserspaceLog | None,
    bank: str,
    values: Mapping[int, bytes],
    *,
    local: bool,
) -> Check:
    if userspace is None and PHASES_REGISTER in values:
        # As the service does for a systemd that keeps no log.
        userspace = infer_phases(log, bank, values[PHASES_REGISTER])
    replayed = replay(log, userspace)
    said = f"{len(log.events)} events"
    if bank not in replayed.banks:
        said += f" for {', '.join(log.algorithms)}, and the TPM has {bank} in use"
        return Check(name, "fail", said, f"have the firmware measure with {bank}: its set-up, or an update")
    states = replayed_states(replayed, bank, values)
    wrong = [pcr for pcr, state in states.items() if state == "mismatch" and pcr != _IMA]
    if wrong:
        told = [
            f"{pcr} ({divergence(log, bank, pcr, values[pcr], userspace=userspace).detail})"
            for pcr in wrong[:_EXPLAINED]
        ] + [str(pcr) for pcr in wrong[_EXPLAINED:]]
        fix = _REPORT if local else "name this machine's own TPM: its logs do not belong to another"
        return Check(name, "fail", f"{said} do not replay to the registers {', '.join(told)} of {bank}", fix)
    held = [str(pcr) for pcr, state in states.items() if state == "match"]
    return Check(name, "ok", f"{said} replay to the registers {', '.join(held) or 'none'} of {bank}")


def judge_userspace(logs: LogReading) -> Iterator[Check]:
    """Most machines have none: systemd writes it where it measures."""
    name, raw = "userspace log", logs.userspace
    if raw is None:
        return
    if isinstance(raw, Unread):
        if raw.code in ("ENOENT", "ENOTDIR"):
            yield Check(name, "ok", "none; this systemd keeps none, or measures nothing here")
        else:
            yield _absent(name, raw, logs.files.userspace, "")
        return
    try:
        count = len(read_userspace(raw).records)
    except StructureError as error:
        yield Check(name, "fail", error.detail, "restart the machine, which begins it anew")
        return
    yield Check(name, "ok", f"{count} records")


def judge_ima(logs: LogReading) -> Iterator[Check]:
    """IMA's list: can it be read, and does it tell of anything?"""
    name, raw = "ima list", logs.ima
    if isinstance(raw, Unread) or not raw:
        if raw is not None:
            yield _absent(name, raw, logs.files.ima, "only policies with [ima] need it")
        return
    try:
        count = sum(1 for _ in read_records(raw))
    except StructureError as error:
        yield Check(
            name, "fail", error.detail, "restart the machine; if it stays so, report its kernel's version"
        )
        return
    if count == 1:
        yield Check(name, "ok", "only the boot aggregate: no IMA policy is loaded")
    else:
        yield Check(name, "ok", f"{count} entries")


def _absent(name: str, raw: Unread | bytes, path: Path | None, unless: str) -> Check:
    """What is not there matters to some policies; what may not be read, to this machine's operator."""
    if not isinstance(raw, Unread):
        return Check(
            name, "warn", f"{path} is empty: {unless}", "the firmware or the kernel does not write it"
        )
    if raw.code in ("EACCES", "EPERM"):
        return Check(name, "fail", f"{path} may not be read by this user", _RIGHTS)
    if raw.code in ("ENOENT", "ENOTDIR"):
        fix = "mount -t securityfs none /sys/kernel/security, if it is not; else the kernel does not write it"
        return Check(name, "warn", f"there is no {path}: {unless}", fix)
    return Check(name, "fail", plain(raw.why), "restart the machine; dmesg may say why")


def _userspace(logs: LogReading) -> UserspaceLog | None:
    """One that cannot be read is judged on its own line."""
    if not isinstance(logs.userspace, bytes):
        return None
    try:
        return read_userspace(logs.userspace)
    except StructureError:
        return None
