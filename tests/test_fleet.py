"""A small fleet loses its power and comes back; the rehearsal tells when that is not as promised, and leaves
nothing behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from attestd.agent.transport import Server
from scripts.fleet.fleet import FEW, MANY, Fleet, Late, affordable, identities, powered
from scripts.fleet.rehearsal import Figures
from scripts.fleet.service import Doings
from scripts.fleet.starts import modules_in
from tests.attestd.web.certificates import Authority
from tests.processes import running_in, surroundings
from tests.serving import free_port
from tpm.swtpm_ca import make_test_ca

ROOT = Path(__file__).parent.parent
FLEET = [sys.executable, "-m", "scripts.fleet", "--agents", "3"]
MEMORY = Path("/dev/shm")


def in_memory() -> set[str]:
    return {path.name for path in MEMORY.glob("fleet-*")}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """One rehearsal of three machines, and the directory that it had for temporary things."""
    directory, before = tmp_path_factory.mktemp("fleet") / "tmp", in_memory()
    ended = subprocess.run(
        FLEET, env=surroundings(directory), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert in_memory() == before
    return ended, directory


def test_all_come_back_with_one_identity_each_at_the_first_try(
    rehearsed: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    ended, _ = rehearsed
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert re.search(r"^issued +6 credentials for 3 devices in 3 accepted rounds$", ended.stdout, re.M)
    assert re.search(r"^most tries of one +1 ", ended.stdout, re.M)
    assert re.search(r" 0 refusals, 0 errors$", ended.stdout, re.M)


def test_a_rehearsal_leaves_nothing_behind(
    rehearsed: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    _, directory = rehearsed
    assert list(directory.iterdir()) == []
    assert running_in(directory) == []


def test_interrupted_it_leaves_nothing_behind_either(tmp_path: Path) -> None:
    directory, before = tmp_path / "tmp", in_memory()
    with subprocess.Popen(
        FLEET,
        env=surroundings(directory),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as rehearsal:
        assert rehearsal.stdout is not None
        while "agents start" not in rehearsal.stdout.readline():
            pass
        assert running_in(directory) != []
        rehearsal.send_signal(signal.SIGTERM)
        assert rehearsal.wait(30) == 128 + signal.SIGTERM
    assert list(directory.iterdir()) == []
    assert (running_in(directory), in_memory()) == ([], before)


def test_a_try_that_fails_is_counted_and_an_agent_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    server, maker = Server(f"https://127.0.0.1:{free_port()}", Authority(tmp_path).pem), make_test_ca()
    with TemporaryDirectory(prefix="fleet-", dir=MEMORY) as volatile:
        fleet = Fleet(tmp_path, Path(volatile), 1, server, maker)
        (machine,) = fleet.machines
        with powered(fleet):
            with pytest.raises(Late, match="does not answer"):
                fleet.start_agents(within=2.0)
            assert machine.tries() > 1
            machine.end_agent()
            with pytest.raises(Late, match="1 machines without identity"):
                identities([machine], within=60.0)


GOOD = Figures(
    first={"1": 1.0, "2": 1.0},
    back={"1": 1.0, "2": 2.0},
    tries={"1": 1, "2": 5},
    doings=Doings({"a": 2, "b": 2}, {"a": 1, "b": 1}, {200: 6}, 0.1),
    device_ids={"1": "a", "2": "b"},
    bare=0.5,
    peak=50_000,
)


def test_figures_as_promised_have_no_fault() -> None:
    assert list(GOOD.faults()) == []
    assert GOOD.beyond == 1.5
    assert list(replace(GOOD, back={"1": 60.4, "2": 1.0}).faults()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda good: replace(good, back={"1": 60.6, "2": 1.0}), "60.1 s beyond the starts"),
        (lambda good: replace(good, tries={"1": 6, "2": 1}), "machine 1 needed 6 tries"),
        (
            lambda good: replace(good, doings=replace(good.doings, issued={"a": 4, "b": 2})),
            "machine 1 was issued 4 credentials in 1 rounds",
        ),
        (
            lambda good: replace(good, doings=replace(good.doings, rounds={"a": 1, "b": 2})),
            "machine 2 was issued 2 credentials in 2 rounds",
        ),
        (
            lambda good: replace(good, doings=replace(good.doings, issued={"a": 2, "b": 2, "c": 2})),
            "1 devices that are not of the fleet",
        ),
        (
            lambda good: replace(good, doings=replace(good.doings, answers={200: 6, 503: 1})),
            "answered 1 times that it cannot serve",
        ),
    ],
)
def test_what_is_not_as_promised_is_said(change: Callable[[Figures], Figures], fault: str) -> None:
    (found,) = change(GOOD).faults()
    assert fault in found


def test_the_fleet_is_smaller_where_memory_is() -> None:
    assert affordable(lambda: 16 << 20) == MANY
    assert affordable(lambda: (16 << 20) - 1) == FEW


def test_the_modules_of_a_trace_come_each_once_and_nothing_else() -> None:
    trace = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |   zlib\n"
        "what the agent has to say\n"
        "import time:        10 |        110 | attestd.agent.running.run\n"
        "import time:        10 |         10 | zlib\n"
    )
    assert modules_in(trace) == ("zlib", "attestd.agent.running.run")
