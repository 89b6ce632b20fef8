"""Which boot phases does PCR 11 hold where systemd kept no log of them?

systemd measures the phases of a boot into PCR 11, and an older one, such as 252, writes no log of that. Their
texts and their order are constants (systemd-pcrphase.service(8)); the unified kernel image before them is in
the firmware's log. So each beginning of the sequence is tried as what followed that log.
"""

from types import MappingProxyType

from tpm.eventlog.events import EventLog
from tpm.eventlog.findings import Finding
from tpm.eventlog.replay import extends, initial_value
from tpm.eventlog.userspace import UserspaceLog, UserspaceRecord
from tpm.structures.algorithms import Hash, hash_by_name

REGISTER = 11
PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final")
"""In systemd's order; each is extended as the hash of its text, without a NUL."""


def infer_phases(log: EventLog, bank: str, quoted: bytes) -> UserspaceLog | None:
    """What systemd's log would have said if this bank's PCR 11 holds phases that follow the firmware's log.
    None where that log tells nothing of PCR 11 or all of it, or where what followed is no beginning of the
    sequence.

    It is as sound as a log that came: a quoted value is explained as the chain of the firmware log's digests
    and of these constants, and another history of it would be a collision of the hash. It explains all that
    followed or nothing: a phase twice, in another order or without those before it is not known. Nothing is
    said of a confidential machine's register, in which other events stand among these.
    """
    if log.format == "ccel" or bank not in log.algorithms:
        return None
    # 1. The firmware's log tells of the register, and not of all that was extended.
    hash = hash_by_name(bank)
    value = _at_hand_over(log, hash)
    if value is None or value == quoted:
        return None
    # 2. A beginning of the sequence followed. No two can fit, for they are histories of one value.
    for count, phase in enumerate(PHASES, 1):
        value = hash.digest(value + hash.digest(phase.encode()))
        if value == quoted:
            return _log_of(PHASES[:count], hash)
    return None


def _at_hand_over(log: EventLog, hash: Hash) -> bytes | None:
    """What the register holds after the firmware's log; None if that does not extend it."""
    digests = [
        event.digests[hash.name]
        for event in log.events
        if event.register == REGISTER and hash.name in event.digests and extends(event)
    ]
    value = initial_value(REGISTER, hash, 0)
    for digest in digests:
        value = hash.digest(value + digest)
    return value if digests else None


def _log_of(phases: tuple[str, ...], hash: Hash) -> UserspaceLog:
    """The records, in the one bank for which they are proven, and a note that nobody wrote them."""
    records = tuple(
        UserspaceRecord(
            REGISTER, MappingProxyType({hash.name: hash.digest(phase.encode())}), phase, "phase", ""
        )
        for phase in phases
    )
    detail = f"No userspace log came; the register holds systemd's phases {':'.join(phases)}."
    return UserspaceLog(records, (Finding("phases_inferred", detail, REGISTER),))
