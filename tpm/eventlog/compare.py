"""Is this log what the quoted registers were extended with, and if not, where does it part from them?"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from tpm.errors import EvidenceError
from tpm.eventlog.events import Event, EventLog
from tpm.eventlog.findings import Finding
from tpm.eventlog.phases import REGISTER as PHASES_REGISTER
from tpm.eventlog.phases import infer_phases
from tpm.eventlog.replay import (
    Replay,
    events_of,
    extends,
    initial_value,
    replay,
    startup_locality,
    told,
)
from tpm.eventlog.userspace import UserspaceLog
from tpm.structures.algorithms import Hash, hash_by_name
from tpm.verify.pcrs import VerifiedPcrs

State = Literal["match", "mismatch", "not_in_log", "not_quoted"]

_IMA = 10
_REMOVAL_LIMIT = 256
"""Events of a register up to which one is sought that was logged and not extended: the work grows with the
square.
"""

_CONTINUATIONS: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    (
        "the firmware extended its two ExitBootServices events and did not log them",
        (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"),
    ),
    ("systemd extended os-separator; send its userspace log too", (b"os-separator",)),
    (
        "both ExitBootServices events and systemd's os-separator followed; send the userspace log too",
        (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success", b"os-separator"),
    ),
)


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """Logs that replay to what a TPM quoted. Comes from `verify_log` alone.

    Facts may be taken from events of `registers`, and of no others.
    """

    log: EventLog
    userspace: UserspaceLog | None
    """The log that came, or the phases that were inferred in its place, with the finding that says so."""
    bank: str
    registers: frozenset[int]
    """The registers that were quoted and to which the logs replay."""
    states: Mapping[int, State]
    """Of each register that was quoted or that the logs extend."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a register and its log part, as far as it can be told."""

    register: int
    event: int | None
    """The first event after which nothing fits, or that does not belong; None where it cannot be told."""
    detail: str


def verify_log(log: EventLog, pcrs: VerifiedPcrs, *, userspace: UserspaceLog | None = None) -> VerifiedLog:
    """The logs that a device sent beside its quote are the registers' history.

    EvidenceError "log_bank_missing", "log_empty" or "log_replay". A register that the logs extend and that
    was not quoted proves nothing and refuses nothing. Where no userspace log came, phases of systemd's that
    alone make PCR 11 what was quoted stand for it: the quote proves them as it proves a log (`infer_phases`).
    """
    userspace = known_userspace(log, pcrs, userspace)
    # 1. The log speaks of the bank that was quoted.
    replayed = replay(log, userspace)
    values = replayed.banks.get(pcrs.bank)
    if values is None:
        banks = ", ".join(log.algorithms)
        raise EvidenceError("log_bank_missing", f"The log has {banks}; the quote covers {pcrs.bank}.")
    # 2. It tells of something.
    if not values:
        raise EvidenceError("log_empty", f"The log extends no register of the {pcrs.bank} bank.")
    # 3. Every register that it extends and that was quoted holds what it says. IMA's has a list of its own.
    states = compare(values, pcrs.values)
    wrong = [register for register, state in states.items() if state == "mismatch" and register != _IMA]
    if wrong:
        register = wrong[0]
        where = divergence(log, pcrs.bank, register, pcrs.values[register], userspace=userspace)
        listed = ", ".join(str(one) for one in wrong)
        raise EvidenceError("log_replay", f"The log does not replay to register {listed}: {where.detail}.")
    matching = frozenset(register for register, state in states.items() if state == "match")
    return VerifiedLog(log, userspace, pcrs.bank, matching, states, replayed.findings)


def known_userspace(log: EventLog, pcrs: VerifiedPcrs, came: UserspaceLog | None) -> UserspaceLog | None:
    """What is known of userspace's measurements: the log that came, to which nothing is ever added; where
    none did, the phases that the quoted PCR 11 holds beyond the firmware's log, if it does.

    An older systemd keeps no log. The finding "phases_inferred" says so and refuses nothing; whether these
    phases are good is for the policy, as with phases of a log.
    """
    if came is not None or PHASES_REGISTER not in pcrs.values:
        return came
    return infer_phases(log, pcrs.bank, pcrs.values[PHASES_REGISTER])


def compare(values: Mapping[int, bytes], quoted: Mapping[int, bytes]) -> Mapping[int, State]:
    """The state of each register, ascending: `values` are what the logs replay to in the quoted bank."""
    states: dict[int, State] = {}
    for register in sorted({*values, *quoted}):
        if register not in quoted:
            states[register] = "not_quoted"
        elif register not in values:
            states[register] = "not_in_log"
        else:
            states[register] = "match" if values[register] == quoted[register] else "mismatch"
    return MappingProxyType(states)


def divergence(
    log: EventLog, bank: str, register: int, quoted: bytes, *, userspace: UserspaceLog | None = None
) -> Divergence:
    """Why a register does not hold what the log says. Explains; decides nothing."""
    hash = hash_by_name(bank)
    history = _history(log, userspace, bank, register)
    start = initial_value(register, hash, startup_locality(log))
    if (found := _stops(history, hash, start, quoted)) is not None:
        return Divergence(register, found.number, f"it holds what comes before {told(found)} and no more")
    if (found := _without_one(history, hash, start, quoted)) is not None:
        return Divergence(register, found.number, f"all fits but {told(found)}, which was not extended")
    if register == 0 and (locality := _other_start(history, hash, quoted)) is not None:
        detail = f"it fits from startup locality {locality}, which the log does not say"
        return Divergence(register, None, detail)
    end = _chained(history, hash, start)
    for why, contents in _CONTINUATIONS:
        value = end
        for content in contents:
            value = hash.digest(value + hash.digest(content))
        if value == quoted:
            last = history[-1].number if history else None
            return Divergence(register, last, f"after its last event {why}")
    if userspace is None and register == PHASES_REGISTER and (phases := infer_phases(log, bank, quoted)):
        said = ":".join(record.text for record in phases.records)
        detail = f"after its last event systemd extended the phases {said}, which a quote would prove"
        return Divergence(register, history[-1].number, detail)
    return Divergence(
        register, None, "an event is missing, changed or in another order; which cannot be told"
    )


def _history(log: EventLog, userspace: UserspaceLog | None, bank: str, register: int) -> list[Event]:
    return [
        event
        for event in events_of(log, userspace)
        if event.register == register and bank in event.digests and extends(event)
    ]


def _chained(history: list[Event], hash: Hash, start: bytes) -> bytes:
    value = start
    for event in history:
        value = hash.digest(value + event.digests[hash.name])
    return value


def _stops(history: list[Event], hash: Hash, start: bytes, quoted: bytes) -> Event | None:
    """The first event that the register does not hold, if it holds all before it."""
    value = start
    for event in history:
        if value == quoted:
            return event
        value = hash.digest(value + event.digests[hash.name])
    return None


def _without_one(history: list[Event], hash: Hash, start: bytes, quoted: bytes) -> Event | None:
    if len(history) > _REMOVAL_LIMIT:
        return None
    value = start
    for place, event in enumerate(history):
        if _chained(history[place + 1 :], hash, value) == quoted:
            return event
        value = hash.digest(value + event.digests[hash.name])
    return None


def _other_start(history: list[Event], hash: Hash, quoted: bytes) -> int | None:
    for locality in (0, 3, 4):
        if _chained(history, hash, initial_value(0, hash, locality)) == quoted:
            return locality
    return None


def replayed_states(replayed: Replay, bank: str, quoted: Mapping[int, bytes]) -> Mapping[int, State]:
    """`compare` for a bank of a replay; empty when the log lacks it, for then nothing is judged."""
    values = replayed.banks.get(bank)
    return MappingProxyType({}) if values is None else compare(values, quoted)
