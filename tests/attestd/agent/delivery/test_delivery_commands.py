"""A program learns of new files by the operator's command, and by nothing that the command does is the agent
held up."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from attestd.agent.delivery.files import Delivery
from attestd.agent.delivery.on_renewal import Commands, run_command
from attestd.agent.holdings import NOTHING, Holdings
from tests.attestd.agent.delivery.delivered import (
    MINUTE,
    NOW,
    STRANGER,
    as_user,
    contents,
    holding,
    lying,
    workload,
)

PYTHON = sys.executable


@pytest.fixture
def memory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="attestd-test."))
    yield made
    shutil.rmtree(made)


def run(*command: str, patience: float = 10) -> str | None:
    return run_command(command, agent="telemetry", files=Path("/run/x"), patience=patience)


def gone(pid: int) -> bool:
    """Within a second."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # Dead; its new parent has not looked yet.
        time.sleep(0.01)
    return False


def test_what_went_wrong_is_one_line_and_what_went_well_none() -> None:
    assert run("/bin/true") is None
    assert run("/bin/false") == "/bin/false ended with status 1"
    assert run("/no/such/program") == "/no/such/program: No such file or directory"
    assert run("/bin/sh", "-c", "kill -9 $$") == "/bin/sh was ended by signal 9"


def test_ag_4_no_shell_reads_the_command(tmp_path: Path) -> None:
    assert run("/bin/echo", f"; touch {tmp_path}/made", f"$(touch {tmp_path}/made)") is None
    assert list(tmp_path.iterdir()) == []


def test_ag_2_the_command_gets_nothing_of_the_agent_but_its_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    secret = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret, True)
    program = (
        "import os, sys; open(sys.argv[1], 'w').write(repr((sorted(os.environ),"
        " sorted(os.listdir('/proc/self/fd'))[:4], os.getcwd(), os.getsid(0) == os.getpid(),"
        " os.readlink('/proc/self/fd/0'), os.environ['ATTESTD_AGENT'], os.environ['ATTESTD_FILES'])))"
    )
    standard_input = os.dup(0)
    os.dup2(secret, 0)
    try:
        assert run(PYTHON, "-I", "-c", program, str(tmp_path / "told")) is None
    finally:
        os.dup2(standard_input, 0)
        os.close(standard_input)
        os.close(secret)
    names, fds, where, leads, reads, agent, files = ast.literal_eval((tmp_path / "told").read_text())
    assert [name for name in names if name != "LC_CTYPE"] == [
        "ATTESTD_AGENT",
        "ATTESTD_FILES",
        "LANG",
        "PATH",
    ]
    assert (len(fds), where, leads, reads) == (4, "/", True, "/dev/null")  # 0, 1, 2 and the listing itself.
    assert (agent, files) == ("telemetry", "/run/x")


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; trap '' TERM; sleep 60"
    began = time.monotonic()
    assert run("/bin/sh", "-c", script, patience=0.3) == (
        "/bin/sh did not end within 0.3 seconds and was killed"
    )
    assert time.monotonic() - began < 5
    assert gone(int((tmp_path / "child").read_text()))


def test_a_command_that_the_system_cannot_take_is_told() -> None:
    assert run("/bin/echo", "a\0b") == "/bin/echo: embedded null byte"


def test_a_command_that_cannot_be_watched_is_killed_and_not_left_without_an_end() -> None:
    before = children_of_this_process()
    ended = run("/bin/sleep", "60", patience=1e30)
    assert ended is not None
    assert re.fullmatch(r"/bin/sleep could not be watched \(.+\) and was killed", ended)
    assert children_of_this_process() == before


_OF_ANOTHER_USER = "$< = 0; $> = 0; $( = 0; sleep 4"


def test_a_command_that_became_another_users_holds_up_no_other_one() -> None:
    """As sudo does. What the agent may not kill it tells of, and goes on."""
    if os.geteuid() != 0:
        return  # Nobody else can make a program of another user.
    folder = Path(tempfile.mkdtemp(prefix="attestd-test."))
    folder.chmod(0o777)
    program = Path(shutil.copy("/usr/bin/perl", folder / "other"))
    program.chmod(0o4755)

    def commands() -> None:
        said: list[str] = []
        made = Commands(said.append, patience=0.5)
        made.run((str(program), "-e", _OF_ANOTHER_USER), agent="a", files=folder)
        made.run(("/bin/sh", "-c", f"echo ran > {folder}/ran"), agent="b", files=folder)
        assert made.finish(10)
        told = f"on_renewal of a: {program} did not end within 0.5 seconds and cannot be killed"
        assert (said, (folder / "ran").read_text()) == ([told], "ran\n")

    try:
        assert as_user(STRANGER, commands) == "done"
    finally:
        shutil.rmtree(folder)


def test_whatever_one_command_does_the_next_one_runs(tmp_path: Path) -> None:
    said: list[str] = []
    commands = Commands(said.append)
    commands.run(Unforeseen(("/bin/true",)), agent="a", files=tmp_path)
    commands.run(("/bin/sh", "-c", f"echo ran > {tmp_path}/ran"), agent="b", files=tmp_path)
    assert commands.finish(10)
    assert said == ["on_renewal of a: /bin/true: RuntimeError: nobody thought of this?"]
    assert (tmp_path / "ran").read_text() == "ran\n"


class Unforeseen(tuple[str, ...]):
    """A command that cannot even be listed."""

    __slots__ = ()

    def __iter__(self) -> NoReturn:
        raise RuntimeError("nobody thought of this\n")


def test_where_nothing_can_be_told_what_comes_later_still_runs(tmp_path: Path) -> None:
    class Gone(Exception):
        """The journal is."""

    def tell(line: str) -> None:
        raise Gone(line)

    threads: list[BaseException | None] = []
    before, threading.excepthook = threading.excepthook, lambda args: threads.append(args.exc_value)
    try:
        commands = Commands(tell)
        commands.run(("/bin/false",), agent="a", files=tmp_path)
        assert commands.finish(10)
        for thread in [each for each in threading.enumerate() if each.name == "on-renewal"]:
            thread.join(10)
        commands.run(("/bin/sh", "-c", f"echo ran > {tmp_path}/ran"), agent="b", files=tmp_path)
        assert commands.finish(10)
    finally:
        threading.excepthook = before
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert [type(each) for each in threads] == [Gone]


def test_no_descriptor_and_no_child_is_left_behind() -> None:
    before, children = os.listdir("/proc/self/fd"), children_of_this_process()
    for command in (("/bin/true",), ("/bin/false",), ("/no/such",), ("/bin/sleep", "60")):
        run(*command, patience=0.2)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert children_of_this_process() == children


def children_of_this_process() -> set[str]:
    """Those of other tests too, which last for the whole session."""
    return {
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    }


def test_it_runs_when_files_changed_and_only_then(memory: Path, tmp_path: Path) -> None:
    said: list[str] = []
    commands = Commands(said.append)
    wanted = workload(
        memory / "files",
        on_renewal=("/bin/sh", "-c", f"ls $ATTESTD_FILES >> {tmp_path}/ran; echo >> {tmp_path}/ran"),
    )
    delivery = Delivery([wanted], tell=said.append, commands=commands)

    def ran(picture: Holdings, at: int = NOW) -> int:
        delivery.show(picture, now=at)
        assert commands.finish(10)
        told = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
        return told.count("telemetry.key.pem")

    first = holding(wanted, contents())
    assert [ran(NOTHING), ran(first), ran(first)] == [0, 1, 1]
    assert ran(holding(wanted, contents())) == 2
    # What ended is gone, and nothing new is there to be read.
    assert ran(NOTHING, NOW + 60 * MINUTE) == 2
    assert said == []


def test_a_failing_command_is_told_and_changes_nothing(memory: Path) -> None:
    said: list[str] = []
    commands = Commands(said.append)
    wanted, files = workload(memory / "files", on_renewal=("/bin/false",)), contents()
    delivery = Delivery([wanted], tell=said.append, commands=commands)
    delivery.show(holding(wanted, files), now=NOW)
    delivery.close()
    assert said == ["on_renewal of telemetry: /bin/false ended with status 1"]
    assert (lying(memory / "files"), delivery.troubles) == (files, {})


def test_a_slow_command_holds_up_no_delivery_and_runs_once_for_many(memory: Path, tmp_path: Path) -> None:
    commands = Commands(print)
    wanted = workload(
        memory / "files", on_renewal=("/bin/sh", "-c", f"echo ran >> {tmp_path}/ran; sleep 0.5")
    )
    delivery, rounds = Delivery([wanted], tell=print, commands=commands), [contents() for _ in range(5)]
    began = time.monotonic()
    for each in rounds:
        delivery.show(holding(wanted, each), now=NOW)
    assert time.monotonic() - began < 0.5
    assert lying(memory / "files") == rounds[-1]
    assert commands.finish(10)
    assert (tmp_path / "ran").read_text().count("ran") <= 2


_SERVICE = """
import sys
from pathlib import Path
from attestd.agent.delivery.on_renewal import Commands
commands = Commands(print)
commands.run(("/bin/grep", "CapEff", "/proc/self/status"), agent="telemetry", files=Path("/run/x"))
commands.finish(10)
print([line for line in open("/proc/self/status") if line.startswith("CapEff")])
"""


def test_ag_2_the_command_has_none_of_the_agents_capabilities() -> None:
    told = Path("/proc/self/status").read_text().split()
    command, held = [PYTHON], told[told.index("CapEff:") + 1]
    if os.geteuid() == 0:
        became = ["--reuid", "54321", "--regid", "54321", "--clear-groups"]
        rights, held = "+dac_read_search", "0000000000000004"
        command = ["setpriv", *became, "--inh-caps", rights, "--ambient-caps", rights, PYTHON]
    repository = Path(__file__).parents[4]
    ended = subprocess.run([*command, "-c", _SERVICE], cwd=repository, capture_output=True, text=True)
    assert (ended.stderr, held in ended.stdout) == ("CapEff:\t0000000000000000\n", True)
