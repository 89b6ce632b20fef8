"""One user of the TPM and one running agent, of all processes; and who dies holds up nobody."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.agent.lock import AlreadyRunning, running_agent, sole_agent, tpm_turn
from attestd.agent.machine import opened
from attestd.agent.state import own_as_directory
from tests.tpm.device.leftovers import leftovers
from tpm.errors import DeviceError
from tpm.swtpm import SoftwareTpm

HOLD = """
import sys, time
from pathlib import Path
from attestd.agent.lock import sole_agent, tpm_turn
with {what}(Path({directory!r})):
    print("held", flush=True)
    time.sleep(60)
"""
DIE_WITH_A_KEY = """
import os, signal
from pathlib import Path
from attestd.agent.machine import opened
with opened({tcti!r}, Path({directory!r})) as device:
    recipe = device.create_ak()
    with device.ak(recipe):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def holding(what: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has it until it is killed."""
    command = [sys.executable, "-c", HOLD.format(what=what, directory=str(directory))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_another_process_has_its_turn_first_and_is_named_when_it_takes_too_long(tmp_path: Path) -> None:
    with holding("tpm_turn", tmp_path) as other:
        told = f"another attestd agent \\(pid {other.pid}\\) uses the TPM"
        with pytest.raises(DeviceError, match=told), tpm_turn(tmp_path, patience=0.1):
            pass
        with tpm_turn(tmp_path / "another machine", patience=0.1):
            pass
        threading.Timer(0.2, other.kill).start()
        start = time.monotonic()
        with tpm_turn(tmp_path, patience=20):
            assert time.monotonic() - start < 10


def test_who_dies_lets_go_and_the_next_one_knows_it(tmp_path: Path) -> None:
    with holding("tpm_turn", tmp_path) as other:
        other.kill()
        other.wait()
        with tpm_turn(tmp_path) as turn:
            assert turn.orphaned
            turn.clean = True
        with tpm_turn(tmp_path) as turn:
            assert not turn.orphaned


def test_a_turn_that_did_not_end_clean_is_told_to_the_next_one(tmp_path: Path) -> None:
    with tpm_turn(tmp_path):
        pass
    with tpm_turn(tmp_path) as turn:
        assert turn.orphaned


def test_ag_7_who_dies_while_taking_the_turn_after_a_death_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tpm_turn(tmp_path):
        pass

    def died(*_: object) -> int:
        raise SystemExit

    for call in "pwrite", "ftruncate":
        with monkeypatch.context() as patched:
            patched.setattr(os, call, died)
            with pytest.raises(SystemExit), tpm_turn(tmp_path):
                pass
    with tpm_turn(tmp_path) as turn:
        assert turn.orphaned
        turn.clean = True
    assert (tmp_path / "tpm.lock").read_text() == ""


def test_threads_of_one_process_have_their_turns_too(tmp_path: Path) -> None:
    inside, most = 0, 0

    def use() -> None:
        nonlocal inside, most
        for _ in range(20):
            with tpm_turn(tmp_path):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_ag_7_what_a_killed_process_left_in_the_tpm_is_flushed_by_the_next(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    script = DIE_WITH_A_KEY.format(tcti=software_tpm.tcti, directory=str(tmp_path))
    for _ in range(4):
        ended = subprocess.run([sys.executable, "-c", script], check=False)
        assert ended.returncode == -signal.SIGKILL
        assert leftovers(software_tpm) != {}
    with opened(software_tpm.tcti, tmp_path) as device:
        device.create_key()
    assert leftovers(software_tpm) == {}


def test_where_no_agent_can_write_there_is_none_to_wait_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with tpm_turn(tmp_path / "file" / "state") as turn:
        assert turn.clean


def test_there_is_one_running_agent_and_the_second_is_told_which(tmp_path: Path) -> None:
    assert running_agent(tmp_path) is None
    with holding("sole_agent", tmp_path) as other:
        assert running_agent(tmp_path) == f"pid {other.pid}"
        with pytest.raises(AlreadyRunning, match=f"pid {other.pid}"), sole_agent(tmp_path):
            pass
    assert running_agent(tmp_path) is None
    with sole_agent(tmp_path):
        assert running_agent(tmp_path) == f"pid {os.getpid()}"
    assert running_agent(tmp_path) is None


def test_programs_that_are_started_meanwhile_do_not_keep_the_lock(tmp_path: Path) -> None:
    with sole_agent(tmp_path):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with sole_agent(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def _as(user: int, directory: Path, told: "multiprocessing.queues.Queue[bool]") -> None:
    if user != os.geteuid():
        os.setgid(user)
        os.setuid(user)
    with sole_agent(directory), tpm_turn(directory) as turn:
        turn.clean = True
    told.put(True)


def test_what_root_did_does_not_lock_the_agents_own_user_out(tmp_path: Path) -> None:
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    directory = tmp_path / "state"
    directory.mkdir()
    if user != os.geteuid():
        os.chown(directory, user, user)
        for parent in directory.parents:
            parent.chmod(parent.stat().st_mode | 0o5)
    with sole_agent(directory), tpm_turn(directory) as turn:
        turn.clean = True
    assert {path.stat().st_uid for path in directory.iterdir()} == {user}
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    child = fork.Process(target=_as, args=(user, directory, told))
    child.start()
    assert told.get(timeout=20)
    child.join()


@pytest.mark.parametrize("name", ["tpm.lock", "run.lock"])
def test_root_writes_into_no_file_that_was_linked_there_from_elsewhere(tmp_path: Path, name: str) -> None:
    """Who owns the state directory would have it given, and emptied."""
    root = os.geteuid() == 0
    directory, other = tmp_path / "state", tmp_path / "shadow"
    directory.mkdir()
    if root:
        os.chown(directory, 65534, 65534)
    other.write_text("precious")
    os.link(other, directory / name)
    with sole_agent(directory), tpm_turn(directory):
        assert running_agent(directory) is not None
    kept = "precious" if root else f"pid {os.getpid()}"
    assert (other.stat().st_uid, other.read_text()[: len(kept)]) == (os.geteuid(), kept)
    (directory / name).unlink()
    # The twin: its own files are its own.
    with sole_agent(directory), tpm_turn(directory):
        pass
    assert {path.stat().st_uid for path in directory.iterdir()} == {directory.stat().st_uid}
    assert (directory / name).read_text().startswith(f"pid {os.getpid()}")


def test_nothing_that_has_another_name_is_given_away(tmp_path: Path) -> None:
    directory, other = tmp_path / "state", tmp_path / "other"
    directory.mkdir()
    other.write_text("")
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    if user != os.geteuid():
        os.chown(directory, user, user)
    for linked, owner in (True, os.geteuid()), (False, user):
        if linked:
            os.link(other, directory / "linked")
        else:
            (directory / "linked").unlink()
        with other.open("rb") as file:
            own_as_directory(file.fileno(), directory)
        assert other.stat().st_uid == owner
