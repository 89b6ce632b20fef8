"""Is a proof good once, in one process, in several, and across their restarts?"""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from attestd.resource.caller import Refused
from attestd.resource.replay import DirectoryReplays, MemoryReplays, Replays
from tests.attestd.resource.issuer import Agent, Issuer, denied

NOW = 1_764_000_000


@pytest.fixture(params=["memory", "directory"])
def replays(request: pytest.FixtureRequest, tmp_path: Path) -> Replays:
    return MemoryReplays() if request.param == "memory" else DirectoryReplays(tmp_path / "spent")


def test_a_proof_is_new_once(replays: Replays) -> None:
    assert replays.spend(b"a", until=NOW + 60, now=NOW)
    assert not replays.spend(b"a", until=NOW + 60, now=NOW + 59)
    assert replays.spend(b"b", until=NOW + 60, now=NOW + 59)


def test_a_clock_that_goes_back_revives_no_proof(replays: Replays) -> None:
    assert replays.spend(b"a", until=NOW + 60, now=NOW)
    for number in range(5):
        assert replays.spend(bytes([number]), until=NOW + 400, now=NOW + 300)
    assert not replays.spend(b"a", until=NOW + 60, now=NOW)
    assert not replays.spend(b"never seen", until=NOW + 60, now=NOW)


def test_a_full_memory_refuses_and_forgets_nothing_too_early() -> None:
    replays = MemoryReplays(capacity=3)
    for name in (b"a", b"b", b"c"):
        assert replays.spend(name, until=NOW + 60, now=NOW)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            replays.spend(b"d", until=NOW + 60, now=NOW)
        assert caught.value.error == "temporarily_unavailable"
    assert not replays.spend(b"a", until=NOW + 60, now=NOW)
    assert replays.spend(b"d", until=NOW + 121, now=NOW + 61)


def test_memory_is_given_back() -> None:
    replays = MemoryReplays(capacity=100)
    for number in range(1000):
        assert replays.spend(str(number).encode(), until=NOW + number + 60, now=NOW + number)


def test_files_are_given_back_when_proofs_are_too_old(tmp_path: Path) -> None:
    replays = DirectoryReplays(tmp_path / "spent")
    for number in range(3):
        replays.spend(bytes([number]), until=NOW + 60, now=NOW)
    replays.spend(b"later", until=NOW + 360, now=NOW + 300)
    assert len(list((tmp_path / "spent").rglob("*"))) == 2  # one directory with one file
    assert (tmp_path / "spent").stat().st_mode & 0o077 == 0


def test_a_directory_that_cannot_be_written_lets_nobody_in(tmp_path: Path) -> None:
    replays = DirectoryReplays(tmp_path / "spent")
    (tmp_path / "spent").rmdir()
    (tmp_path / "spent").write_text("a file where the directory was")
    with pytest.raises(Refused):
        replays.spend(b"a", until=NOW + 60, now=NOW)


def _spend(directory: str, ready: Any, won: Any) -> None:
    replays = DirectoryReplays(Path(directory))
    ready.wait()
    won.put(sum(replays.spend(bytes([number]), until=NOW + 60, now=NOW) for number in range(50)))


def test_several_processes_let_each_proof_in_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, won = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path / "spent"), ready, won)
    processes = [context.Process(target=_spend, args=arguments) for _ in range(2)]
    for each in processes:
        each.start()
    counts = [won.get(timeout=60) for _ in processes]
    for each in processes:
        each.join()
    assert sum(counts) == 50


def test_a_proof_that_one_guard_let_in_is_refused_by_the_next_process_and_after_a_restart(
    issuer: Issuer, agent: Agent, tmp_path: Path
) -> None:
    first = issuer.guard(replays=DirectoryReplays(tmp_path / "spent"))
    second = issuer.guard(replays=DirectoryReplays(tmp_path / "spent"))
    token = issuer.token(agent)
    request = agent.request(token)
    first.check(request)
    denied(second, request, 401, "invalid_dpop_proof")
    second.check(agent.request(token, agent.proof(token, iat=int(time.time()))))
