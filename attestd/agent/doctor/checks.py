"""Which checks are there, and in which order are they told?

What others rest on comes first. All readings of the TPM are made in one turn; nothing is changed anywhere,
not even a lock's file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attestd.agent.doctor import ek_judgments as ek
from attestd.agent.doctor import enrolment_judgments as enrolment
from attestd.agent.doctor import log_judgments as logs
from attestd.agent.doctor import service_judgments as service
from attestd.agent.doctor import settings_judgments as wishes
from attestd.agent.doctor import tpm_judgments as tpms
from attestd.agent.doctor.check import Check, Unread, judged, made
from attestd.agent.doctor.log_readings import LogReading, read_logs
from attestd.agent.doctor.machine_readings import (
    Runner,
    StateReading,
    read_folders,
    read_place,
    read_runner,
    read_state,
)
from attestd.agent.doctor.service_readings import Answer, read_service
from attestd.agent.doctor.tpm_readings import Nodes, TpmReading, read_nodes, read_tpm
from attestd.agent.logs import OWN, LogFiles
from attestd.agent.settings import Settings
from attestd.agent.workload.rules import read_rules

TPM = frozenset({"tpm"})
"""The TPM and nothing else."""
JOINING = frozenset({"tpm", "logs", "service"})
"""What a machine needs before it can become a device."""
ALL = frozenset({"tpm", "logs", "service", "enrolment", "settings"})

Judgment = Callable[[], Iterator[Check]]


@dataclass(frozen=True)
class _Machine:
    """The readings, each made when it is first asked for."""

    settings: Settings
    files: LogFiles
    now: Callable[[], int]

    @cached_property
    def nodes(self) -> Nodes:
        return read_nodes(self.settings.tpm)

    @cached_property
    def tpm(self) -> TpmReading | Unread:
        return read_tpm(self.settings.tpm, self.settings.state)

    @cached_property
    def logs(self) -> LogReading:
        return read_logs(self.files)

    @cached_property
    def state(self) -> StateReading:
        return read_state(self.settings.state)

    @cached_property
    def runner(self) -> Runner:
        return read_runner(self.settings.state, self.settings.socket)

    @property
    def url(self) -> str | None:
        """The service that was named, or the one that was joined."""
        membership = self.state.membership
        if membership is None or isinstance(membership, Unread):
            return self.settings.server
        return self.settings.server or membership.server

    @cached_property
    def answer(self) -> Answer | Unread | None:
        url = self.url
        return None if url is None else read_service(url, self.settings, now=self.now)


def checks(
    settings: Settings,
    *,
    now: Callable[[], int],
    groups: frozenset[str] = ALL,
    source: Path | Unread | None = None,
    files: LogFiles = OWN,
) -> Iterator[Check]:
    """The checks of these groups, each told as soon as it is made; raises nothing. `now` is the clock, in
    milliseconds. `source` is the settings' file; Unread where it cannot be used, and others are judged."""
    machine = _Machine(settings, files, now)
    made_by: dict[str, Callable[[], dict[str, Judgment]]] = {
        "tpm": lambda: _tpm(machine),
        "logs": lambda: _logs(machine),
        "service": lambda: _service(machine),
        "enrolment": lambda: _enrolment(machine),
        "settings": lambda: _settings(machine, source),
    }
    for group, judgments in made_by.items():
        if group in groups:
            for name, judgment in judgments().items():
                yield from judged(name, judgment)


def _tpm(machine: _Machine) -> dict[str, Judgment]:
    """What cannot be asked of a TPM that does not open is not told of."""
    of_reading: dict[str, Callable[[TpmReading], Iterator[Check]]] = {
        "tpm version": lambda tpm: tpms.judge_version(tpm.properties),
        "tpm maker": lambda tpm: tpms.judge_maker(tpm.properties),
        "lockout": lambda tpm: tpms.judge_lockout(tpm.properties),
        "tpm slots": lambda tpm: tpms.judge_leavings(tpm.leavings, machine.settings.tpm),
        "pcr banks": lambda tpm: tpms.judge_banks(tpm.allocation),
        "ek certificate": lambda tpm: ek.judge_certificate(
            tpm.endorsement, tpm.properties, now=machine.now()
        ),
        "ek chain": lambda tpm: ek.judge_chain(tpm.endorsement),
    }

    def of(judge: Callable[[TpmReading], Iterator[Check]]) -> Judgment:
        return lambda: iter(()) if isinstance(machine.tpm, Unread) else judge(machine.tpm)

    access = {"tpm": lambda: tpms.judge_access(machine.nodes, machine.tpm)}
    return access | {name: of(judge) for name, judge in of_reading.items()}


def _logs(machine: _Machine) -> dict[str, Judgment]:
    tcti = machine.settings.tpm

    def event_log() -> Iterator[Check]:
        registers = machine.tpm if isinstance(machine.tpm, Unread) else machine.tpm.registers
        return logs.judge_event_log(machine.logs, registers, tcti=tcti)

    return {
        "event log": event_log,
        "userspace log": lambda: logs.judge_userspace(machine.logs),
        "ima list": lambda: logs.judge_ima(machine.logs),
    }


def _service(machine: _Machine) -> dict[str, Judgment]:
    return {
        "clock": lambda: service.judge_clock(machine.now(), machine.answer),
        "server": lambda: service.judge_service(machine.url, machine.answer),
    }


def _enrolment(machine: _Machine) -> dict[str, Judgment]:
    named = machine.settings.server
    return {
        "state": lambda: enrolment.judge_state(machine.state.place),
        "enrolment": lambda: enrolment.judge_enrolment(machine.state, machine.tpm, named=named),
        "attestation key": lambda: enrolment.judge_ak(machine.state, machine.tpm),
    }


def _settings(machine: _Machine, source: Path | Unread | None) -> dict[str, Judgment]:
    settings = machine.settings
    rules, unknown = read_rules(settings.workloads)

    def file() -> Iterator[Check]:
        if source is None or isinstance(source, Unread):
            return wishes.judge_settings(source, settings)
        return wishes.judge_settings(made(lambda: read_place(source.resolve())), settings)

    def socket() -> Iterator[Check]:
        place, folder = settings.socket, settings.socket.parent
        return wishes.judge_socket(
            read_place(place), read_place(folder), read_place(folder.parent), machine.runner
        )

    return {
        "settings": file,
        "callers": lambda: wishes.judge_callers(rules, unknown),
        "user": lambda: wishes.judge_runner(machine.runner),
        "rights": lambda: wishes.judge_rights(rules, machine.runner),
        "socket": socket,
        "files": lambda: wishes.judge_folders(read_folders(rules, machine.runner)),
    }
