"""How long does a machine wait for its identity, and what does an agent cost that runs for years?

The floor of a start is what nobody who uses this TPM, this service and Python can leave out: an interpreter
with the same imports, the same TPM commands issued one after the other, and the service's own time by its own
clock. The steps come from relays before TPM and service, in runs of their own.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.bench.agent_steps import steps, tpm_floor
from scripts.bench.measure import Fact, Row
from scripts.fleet.fleet import Late, identities, memory
from scripts.fleet.machine import Machine
from scripts.fleet.rehearsal import imported, stage
from scripts.fleet.service import AccessLog
from scripts.fleet.starts import bare_starts
from tests.serving import Serving

STARTS = 25
RENEWALS, WARM_UP = 1000, 50
BOUND = 1.3
PATIENCE, LOOK = 60.0, 0.001
MEMORY_BOUND = 60 << 10
"""KiB."""
GROWTH_BOUND = 512
"""KiB in a thousand renewals: an allocator breathes that much."""
UNLIMITED = {"unproven_per_second": "0", "device_per_minute": "0"}


def rows() -> Iterator[Row | Fact]:
    """A start beside its floor, its steps, and a thousand renewals."""
    seen = steps()
    with stage(1, settings=UNLIMITED) as (serving, fleet):
        (machine,) = fleet.machines
        fleet.start_agents(within=PATIENCE)  # Enrols: once in a machine's life.
        modules = imported(fleet)
        machine.power_on()
        yield _start_row(serving, machine, modules, seen.commands)
        bare = [bare_starts(modules) * 1e6 for _ in range(9)]
        yield Row.alone(f"  of it an interpreter and {len(modules)} imports", bare)
        yield from seen.rows()
        machine.start_agent()
        identities([machine], within=PATIENCE)
        yield from _renewals(serving, machine)


def _start_row(serving: Serving, machine: Machine, modules: Sequence[str], commands: Sequence[bytes]) -> Row:
    ours, floor = [], []
    log = AccessLog(serving)
    for _ in range(STARTS + 2):
        least = bare_starts(modules) + tpm_floor(machine, commands)
        log.skip()
        ours.append(_start_to_identity(machine) * 1e6)
        floor.append((least + sum(request["ms"] for request in log.requests()) / 1000) * 1e6)
    return Row.beside("agent: start to identity, software TPM", ours[2:], floor[2:], bound=BOUND)


def _start_to_identity(machine: Machine) -> float:
    """Seconds; the agent is ended again, and what it delivered is gone."""
    begin = time.monotonic()
    machine.start_agent()
    identities([machine], within=PATIENCE, look=LOOK)
    seconds = time.monotonic() - begin
    machine.end_agent()
    return seconds


def _renewals(serving: Serving, machine: Machine) -> Iterator[Row | Fact]:
    """A running agent is told to read its settings again, which it answers with a round; a thousand times."""
    assert machine.agent is not None
    pid, log = machine.agent.pid, AccessLog(serving)
    for _ in range(WARM_UP):
        _renewal(machine)
    first, spent, values = memory(pid, "VmRSS"), _cpu(pid), []
    log.skip()
    for _ in range(RENEWALS):
        values.append(_renewal(machine) * 1e6)
    last, cpu = memory(pid, "VmRSS"), (_cpu(pid) - spent) / RENEWALS
    service = sum(request["ms"] for request in log.requests()) / RENEWALS
    note = f"{cpu * 1000:.1f} ms of CPU each, the service's own time {service:.1f} ms"
    yield Row.alone(f"agent: one of {RENEWALS:,} renewals", values, note=note)
    peak = memory(pid, "VmHWM")
    yield Fact(
        "agent: memory",
        f"{first / 1024:.1f} MiB after {WARM_UP} renewals, {last / 1024:.1f} MiB after {RENEWALS:,} more, "
        f"at most {peak / 1024:.1f} MiB",
        f"growth ≤ {GROWTH_BOUND} KiB, at most {MEMORY_BOUND >> 10} MiB",
        last - first <= GROWTH_BOUND and peak <= MEMORY_BOUND,
    )


def _renewal(machine: Machine) -> float:
    """Seconds from the signal until the next generation is there."""
    assert machine.agent is not None
    before, begin = os.readlink(machine.identity), time.monotonic()
    machine.agent.send_signal(signal.SIGHUP)
    while os.readlink(machine.identity) == before:
        if time.monotonic() - begin > PATIENCE:
            raise Late(f"no renewal; the agent said last: {machine.log()[-500:]}")
        time.sleep(LOOK)
    return time.monotonic() - begin


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
