"""kill -9 at any moment of the agent's first seconds: afterwards a start leads to the identity, and to one.

Each start is a fork of a process that has loaded everything already, so that the moments lie in the work and
not in the loading of modules. `python -m tests.attestd.agent.running.test_killed 500` tries as many as one
likes.
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from attestd.agent.state import State
from tests.attestd.agent.running.forked import agent
from tests.attestd.agent.running.started import PLAIN
from tests.serving import Serving
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

POINTS, STARTS_BETWEEN = 100, 5
"""A hundred moments, and after each fifth a start that is let go on."""
SECONDS = 30.0

_warm = multiprocessing.get_context("forkserver")
# What each child runs first is this process's main module: pytest's, or this one.
_warm.set_forkserver_preload(
    ["pytest", "tests.serving", "attestd.cli.agent_run", "tests.attestd.agent.running.forked"]
)


@dataclass
class Victim:
    """One machine, whose agent is killed again and again."""

    tpm: SoftwareTpm
    directory: Path
    url: str
    chance: random.Random
    ids: set[str] = field(default_factory=set)
    longest: float = 0.2
    """Seconds from a start to its identity."""
    early: int = 0

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def configure(self) -> None:
        head = f'server = "{self.url}"\ntpm = "{self.tpm.tcti}"\nstate = "state"\nsocket = "workload.sock"\n'
        (self.directory / "agent.toml").write_text(head + PLAIN)

    def start(self) -> ForkServerProcess:
        given = (str(self.directory / "agent.toml"), str(self.directory / "log"))
        process = _warm.Process(target=agent, args=given, daemon=True)
        process.start()
        return process

    def kill(self) -> None:
        """Start it and kill it somewhere between its first instruction and a little after its identity."""
        process = self.start()
        time.sleep(self.chance.uniform(0, 1.2 * self.longest))
        self.early += not self.has_identity(process)
        process.kill()
        process.join()
        self.check_files()

    def recover(self) -> None:
        """Start it and let it go on until it has its identity; then the machine is as clean as ever."""
        begin = time.monotonic()
        process = self.start()
        while not self.has_identity(process):
            assert process.is_alive(), self.log()
            assert time.monotonic() < begin + SECONDS, self.log()
            time.sleep(0.005)
        self.longest = 0.5 * self.longest + 0.5 * (time.monotonic() - begin)
        process.terminate()
        process.join(SECONDS)
        assert process.exitcode == 0, self.log()
        assert leftovers(self.tpm) == {}
        membership, _ = State(self.state).enrolment()
        self.ids.add(membership.device_id)
        assert len(self.ids) == 1

    def has_identity(self, process: ForkServerProcess) -> bool:
        told = State(self.state).standing() or {}
        return told.get("pid") == process.pid and told.get("identity") is True

    def check_files(self) -> None:
        """Each is whole, or not there."""
        for path in self.state.glob("*.json"):
            assert isinstance(json.loads(path.read_text()), dict)
        kept = State(self.state)
        membership, recipe = kept.membership(), kept.recipe()
        assert membership is None or recipe is not None
        if membership is not None:
            self.ids.add(membership.device_id)

    def forget(self) -> None:
        """The next start enrols."""
        for path in self.state.iterdir():
            with suppress(FileNotFoundError):
                path.unlink()

    def log(self) -> str:
        return (self.directory / "log").read_text()[-3000:]


def killed(serving: Serving, tpm: SoftwareTpm, directory: Path, *, points: int) -> Victim:
    victim = Victim(tpm, directory, serving.url, random.Random(9))
    victim.configure()
    victim.recover()
    for point in range(points):
        if point % (2 * STARTS_BETWEEN) == 0:
            victim.forget()
        victim.kill()
        if point % STARTS_BETWEEN == STARTS_BETWEEN - 1:
            victim.recover()
    return victim


def test_killed_at_a_hundred_moments_it_still_becomes_the_one_device_that_it_is(
    serving: Serving, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    devices = len(serving.listed("device", "list"))
    victim = killed(serving, software_tpm, tmp_path, points=POINTS)
    assert len(serving.listed("device", "list")) == devices + 1
    # The moments were before the identity, and some after it.
    assert POINTS // 3 < victim.early < POINTS
    drafts = [path for path in victim.state.iterdir() if path.name.startswith(".")]
    State(victim.state).sweep(now=int(time.time() * 1000) + 120_000)
    assert all(not path.exists() for path in drafts)
    victim.recover()


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    with tempfile.TemporaryDirectory() as name, SoftwareTpm() as tpm, Serving(Path(name) / "srv") as serving:
        (Path(name) / "machine").mkdir()
        victim = killed(serving, tpm, Path(name) / "machine", points=points)
        print(f"killed {points} times, {victim.early} before its identity; devices: {len(victim.ids)}")


if __name__ == "__main__":
    main()
