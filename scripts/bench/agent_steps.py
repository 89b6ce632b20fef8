"""Where does the time of a start go?

The real agent in a process of its own, with relays before its TPM and its service. What lies between two
exchanges is the agent's own work.
"""

import shutil
import socket
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scripts.bench.agent_tap import ServiceTap, Spoken, TpmTap, message
from scripts.bench.measure import Row
from scripts.fleet.fleet import identities
from scripts.fleet.machine import Machine
from scripts.fleet.rehearsal import stage
from scripts.fleet.service import AccessLog
from tests.serving import free_port

RUNS, FIRST_RUNS = 9, 5
PATIENCE, LOOK = 60.0, 0.001
_AT_FIRST, _BETWEEN = "start to the first word to the service", "its own work between"
_OPENING = "turn at the TPM, opening it, new key"
_DELIVERY = "delivery as files"
_COMMANDS = {
    0x131: "CreatePrimary",
    0x147: "ActivateCredential",
    0x14E: "NV_Read",
    0x151: "PolicySecret",
    0x158: "Quote",
    0x165: "FlushContext",
    0x169: "NV_ReadPublic",
    0x173: "ReadPublic",
    0x176: "StartAuthSession",
    0x17A: "GetCapability",
    0x17E: "PCR_Read",
}
_PATHS = {
    "/.well-known/spiffe/bundle": "bundle",
    "/v1/challenges": "challenge",
    "/v1/attestations": "attestation",
    "/v1/enrollments": "enrolment",
    "/v1/activations": "activation",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One start: seconds from start to identity, by step (in order), the service's own seconds by its clock,
    and the TPM commands as they were sent."""

    total: float
    steps: Mapping[str, float]
    service: float
    commands: tuple[bytes, ...]

    @property
    def tpm(self) -> float:
        return sum(seconds for name, seconds in self.steps.items() if name.startswith("TPM2_"))


@dataclass(frozen=True, slots=True)
class Steps:
    """Of starts of an enrolled machine, and of first starts."""

    starts: Sequence[Run]
    first: Sequence[Run]

    @property
    def commands(self) -> tuple[bytes, ...]:
        """What a start asks its TPM to do."""
        return self.starts[-1].commands

    def rows(self) -> Iterator[Row]:
        for name in self.starts[-1].steps:
            yield Row.alone(f"  {name}", [run.steps.get(name, 0.0) * 1e6 for run in self.starts])
        own = [run.service * 1e6 for run in self.starts]
        yield Row.alone("  the service's part, by its own clock", own)
        note = (
            f"TPM {statistics.median(run.tpm for run in self.first) * 1000:.1f} ms, "
            f"service {statistics.median(run.service for run in self.first) * 1000:.1f} ms of it"
        )
        totals = [run.total * 1e6 for run in self.first]
        yield Row.alone("agent: first start, which enrols", totals, note=note)


def steps() -> Steps:
    """Relays in front of a machine's TPM and of its service, and its agent started again and again."""
    port = free_port()
    settings = {"unproven_per_second": "0", "device_per_minute": "0"}
    with stage(1, url=f"https://127.0.0.1:{port}", settings=settings) as (serving, fleet):
        (machine,) = fleet.machines
        real = machine.tpm_socket.resolve()
        machine.tpm_socket.unlink()
        machine.tpm_socket.with_name("tpm.ctrl").unlink()
        tpm = TpmTap(machine.tpm_socket, real, time.monotonic)
        service = ServiceTap(port, serving.port, time.monotonic)
        log = AccessLog(serving)
        try:
            first = [_first(machine, tpm, service, log) for _ in range(FIRST_RUNS)]
            starts = [_run(machine, tpm, service, log) for _ in range(RUNS + 1)][1:]
        finally:
            tpm.close()
            service.close()
    return Steps(starts, first)


def tpm_floor(machine: Machine, commands: Sequence[bytes]) -> float:
    """Seconds that its TPM takes for these, issued one after the other."""
    with socket.socket(socket.AF_UNIX) as tpm:
        tpm.connect(str(machine.tpm_socket))
        begin = time.perf_counter()
        answers = []
        for command in commands:
            tpm.sendall(command)
            answers.append(message(tpm))
        seconds = time.perf_counter() - begin
    for answer in answers:
        code = struct.unpack_from(">I", answer, 6)[0]
        assert code == 0, f"a command that the agent gave is refused now: {code:#x}"
    return seconds


def _first(machine: Machine, tpm: TpmTap, service: ServiceTap, log: AccessLog) -> Run:
    """As if it had never been enrolled; the service sees a device that it knows with a new key."""
    shutil.rmtree(machine.directory / "state", ignore_errors=True)
    return _run(machine, tpm, service, log)


def _run(machine: Machine, tpm: TpmTap, service: ServiceTap, log: AccessLog) -> Run:
    tpm.spoken.clear()
    service.spoken.clear()
    log.skip()
    begin = time.monotonic()
    machine.start_agent()
    identities([machine], within=PATIENCE, look=LOOK)
    end = time.monotonic()
    machine.end_agent()
    requests = log.requests()
    until = [spoken for spoken in service.spoken if spoken.begin < end]
    named = [
        (_PATHS.get(request["path"], request["path"]), spoken)
        for request, spoken in zip(requests, until, strict=False)
    ]
    commands = [spoken for spoken in tpm.spoken if spoken.begin < end]
    return Run(
        end - begin,
        _steps(begin, end, named, commands),
        sum(request["ms"] for request, _ in zip(requests, until, strict=False)) / 1000,
        tuple(spoken.command for spoken in commands),
    )


def _steps(
    begin: float, end: float, requests: Sequence[tuple[str, Spoken]], commands: Sequence[Spoken]
) -> dict[str, float]:
    """Seconds by step; together they are all the time from `begin` to `end`."""
    told = [(f"asking for the {name}", spoken) for name, spoken in requests]
    told += [(_command_name(spoken.command), spoken) for spoken in commands]
    found: dict[str, float] = defaultdict(float)
    before, gap = begin, _AT_FIRST
    for name, spoken in sorted(told, key=lambda each: each[1].begin):
        found[gap] += spoken.begin - before
        found[name] += spoken.seconds
        before = spoken.end
        gap = _OPENING if name == "asking for the bundle" else _BETWEEN
    found[_DELIVERY] += end - before
    return found


def _command_name(command: bytes) -> str:
    code = struct.unpack_from(">I", command, 6)[0]
    return f"TPM2_{_COMMANDS.get(code, hex(code))}"
