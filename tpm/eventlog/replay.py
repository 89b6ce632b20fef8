"""What do the registers hold if the log is true?

Platform Firmware Profile 1.06, 3.3.3 and 10.4.5.3: a register is the chain of the digests that were
extended into it, from its initial value. Records of type EV_NO_ACTION extend nothing. Their one effect is
StartupLocality, which gives PCR 0 its initial value; it is as unauthenticated as they are, and whoever
compares PCR 0 with what a TPM quoted finds out whether it was true.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tpm.eventlog.events import Event, EventLog, EventType, type_name
from tpm.eventlog.findings import Finding
from tpm.eventlog.userspace import UserspaceLog
from tpm.structures.algorithms import Hash, hash_by_name

_NO_ACTION = int(EventType.EV_NO_ACTION)
_LOCALITY = b"StartupLocality\0"
_LOCALITIES = (0, 3, 4)
_HCRTM_LOCALITY = 4


@dataclass(frozen=True, slots=True)
class Replay:
    """The values of the registers that the logs extend, and only of those, by bank and register."""

    banks: Mapping[str, Mapping[int, bytes]]
    startup_locality: int
    findings: tuple[Finding, ...]


def replay(log: EventLog, userspace: UserspaceLog | None = None) -> Replay:
    """All banks of the log that we can compute, after the firmware's log and then after systemd's.

    A bank that no event extends is there and empty. Userspace digests of a bank that the firmware's log
    does not have are left out, for what the firmware did to that bank is not known.
    """
    locality, findings = _startup(log)
    events = events_of(log, userspace)
    banks = {}
    for name in log.algorithms:
        if not name.startswith("0x"):
            banks[name] = MappingProxyType(_chain(events, hash_by_name(name), locality))
    if userspace is not None:
        findings += userspace.findings
    return Replay(MappingProxyType(banks), locality, (*findings, *_measures_nothing(banks)))


def startup_locality(log: EventLog) -> int:
    """The locality that `replay` starts PCR 0 from."""
    return _startup(log)[0]


def events_of(log: EventLog, userspace: UserspaceLog | None) -> tuple[Event, ...]:
    """Both logs in the order in which they happened, numbered on."""
    if userspace is None:
        return log.events
    return log.events + userspace.events(len(log.events))


def extends(event: Event) -> bool:
    """Does this record say that a register was extended?"""
    return event.type != _NO_ACTION


def initial_value(register: int, hash: Hash, locality: int) -> bytes:
    """What a register holds before the first event of the log.

    PCR 17 to 22 are all ones until a dynamic launch sets them to zero; a log that extends them tells of one.
    """
    return bytes(hash.size - 1) + bytes((locality if register == 0 else 0,))


def _chain(events: tuple[Event, ...], hash: Hash, locality: int) -> dict[int, bytes]:
    name = hash.name
    new = getattr(hashlib, name)
    values: dict[int, bytes] = {0: initial_value(0, hash, locality)}
    other = initial_value(1, hash, locality)
    extended = set()
    for _, register, kind, digests, _ in events:
        if kind == _NO_ACTION:
            continue
        digest = digests.get(name)
        if digest is not None:
            extended.add(register)
            values[register] = new(values.get(register, other) + digest).digest()
    return {register: values[register] for register in sorted(extended)}


def _startup(log: EventLog) -> tuple[int, tuple[Finding, ...]]:
    """The locality from which the TPM was started, and what is odd about the records that say so.

    The first record counts if nothing was extended into PCR 0 before it. Without one, an H-CRTM event as
    the first of PCR 0 says that the CPU measured before the TPM was started, from locality 4.
    """
    locality: int | None = None
    started = False
    findings: list[Finding] = []
    for event in log.events:
        if event.type != _NO_ACTION:
            if event.register == 0 and not started:
                started = True
                if locality is None and event.type == EventType.EV_EFI_HCRTM_EVENT:
                    locality = _HCRTM_LOCALITY
        elif event.data.startswith(_LOCALITY):
            fault = _fault_of_locality(event, repeated=locality is not None, late=started)
            if fault is None and log.format != "ccel":
                locality = event.data[16]
            elif fault is not None:
                findings.append(fault)
        elif event.number > 0 and event.data.startswith(b"Spec ID Event"):
            findings.append(
                Finding("header_repeated", "A second log begins within this one.", None, event.number)
            )
    return locality or 0, tuple(findings)


def _fault_of_locality(event: Event, *, repeated: bool, late: bool) -> Finding | None:
    def finding(code: str, detail: str) -> Finding:
        return Finding(code, detail, 0, event.number)

    if event.register != 0 or len(event.data) != 17 or event.data[16] not in _LOCALITIES:
        return finding("startup_locality_malformed", "It is not a record of PCR 0 with locality 0, 3 or 4.")
    if late:
        return finding("startup_locality_late", "PCR 0 had been extended before; it is not counted.")
    if repeated:
        return finding("startup_locality_repeated", "Only the first one counts.")
    return None


def _measures_nothing(banks: Mapping[str, Mapping[int, bytes]]) -> tuple[Finding, ...]:
    if any(banks.values()):
        return ()
    return (Finding("log_measures_nothing", "No event extends a register in a bank that we can compute."),)


def told(event: Event) -> str:
    """An event's place and type for a sentence."""
    return f"event {event.number} ({type_name(event.type)})"
