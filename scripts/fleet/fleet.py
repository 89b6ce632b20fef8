"""How do many machines start, lose their power together and come back at once?"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from attestd.agent.transport import Server
from scripts.fleet.machine import Machine
from tpm.swtpm_ca import TestCa

_LOOK_SECONDS = 0.02
_FREE_FOR_MANY = 16 << 20
"""KiB that must be free for `MANY` agents."""
MANY, FEW = 200, 50


class Late(Exception):
    """Some machine had no identity in time; what its agent said last."""


class Fleet:
    """Machines with their disks under `directory` and their tmpfs under `volatile`, all off at first."""

    def __init__(self, directory: Path, volatile: Path, count: int, server: Server, maker: TestCa) -> None:
        width = len(str(count))
        names = [f"{number:0{width}}" for number in range(1, count + 1)]
        self.machines = [Machine(directory / name, volatile / name, server, maker) for name in names]

    def power_on(self) -> None:
        """All TPMs; no agent yet."""
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
            list(pool.map(Machine.power_on, self.machines))

    def start_agents(self, *, within: float) -> Mapping[str, float]:
        """All at once. Seconds from the first start until each machine has its identity, by its name;
        Late if one has none `within` so many seconds."""
        begin = time.monotonic()
        # In a thread, which signals do not interrupt: an agent that is started is one that is known.
        with ThreadPoolExecutor(1) as pool:
            list(pool.map(Machine.start_agent, self.machines))
        took = time.monotonic() - begin
        return {name: took + more for name, more in identities(self.machines, within=within).items()}

    def cut_power(self) -> None:
        """Of all machines in the same moment."""
        for machine in self.machines:
            machine.cut()
        for machine in self.machines:
            machine.settle()


def identities(
    machines: Sequence[Machine], *, within: float, look: float = _LOOK_SECONDS
) -> dict[str, float]:
    """Seconds from now until each has its identity, by its name; Late if one has none in time, or its agent
    has ended. `look`: how often to look, in seconds."""
    begin, waiting, had = time.monotonic(), list(machines), dict[str, float]()
    while waiting:
        now = time.monotonic() - begin
        had |= {machine.name: now for machine in waiting if machine.identity.exists()}
        waiting = [machine for machine in waiting if machine.name not in had]
        ended = [machine for machine in waiting if machine.agent is None or machine.agent.poll() is not None]
        if ended or (waiting and now > within):
            one = (ended or waiting)[0]
            raise Late(f"{len(waiting)} machines without identity; {one.name}: {one.log()[-500:]}")
        time.sleep(look)
    return had


@contextmanager
def powered(fleet: Fleet) -> Iterator[Fleet]:
    """Leaving it cuts the power, whatever happened."""
    try:
        fleet.power_on()
        yield fleet
    finally:
        fleet.cut_power()


def affordable(free: Callable[[], int] | None = None) -> int:
    """How many agents this machine has the memory for: `MANY`, else `FEW`."""
    return MANY if (free or free_memory)() >= _FREE_FOR_MANY else FEW


def free_memory() -> int:
    """KiB that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def largest(machines: Sequence[Machine]) -> int:
    """KiB: the most memory that one of their agents ever had."""
    return max(memory(machine.agent.pid, "VmHWM") for machine in machines if machine.agent is not None)


def memory(pid: int, which: str) -> int:
    """KiB: "VmRSS" is what a process has now, "VmHWM" the most that it ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1])
    return 0
