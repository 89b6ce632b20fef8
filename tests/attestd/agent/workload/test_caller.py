"""Who is at the other end is told by the kernel, and never by whoever is there."""

import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.agent.workload.caller import SO_PEERPIDFD, Caller, credentials, identify, unit_of

MINE = os.path.realpath(sys.executable)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        made.listen()
        yield made


def connect(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Our end and the server's."""
    ours = socket.socket(socket.AF_UNIX)
    ours.connect(listener.getsockname())
    return ours, listener.accept()[0]


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/telemetry.service", "telemetry.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/telemetry.service/worker", "telemetry.service"),
        ("/system.slice/telemetry.service/init.scope/other.service", "telemetry.service"),
        ("/plant.slice/plant-1.slice/telemetry.service", "telemetry.service"),
        ("/system.slice/a\\x2db.service", "a\\x2db.service"),
        ("/system.slice/_memory.service", "memory.service"),
        ("/init.scope", "init.scope"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/system.slice/docker-0123.scope", "docker-0123.scope"),
        # A user's manager names its units as it likes: all are the one unit of the system's.
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/telemetry.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/telemetry.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/system.slice/telemetry.service", "user@1000.service"),
        # Containers without systemd's help, other namespaces, and what is gone.
        ("/docker/0123456789abcdef/telemetry.service", None),
        ("/../../system.slice/telemetry.service", None),
        ("/..", None),
        ("/", None),
        ("", None),
        ("/system.slice", None),
        ("/system.slice/telemetry.service (deleted)", None),
        ("/system.slice//telemetry.service", None),
        ("/system.slice/telemetry.service\\012", None),
    ],
)
def test_the_unit_is_the_first_part_that_is_no_slice(path: str, unit: str | None) -> None:
    assert unit_of(f"0::{path}\n") == unit
    assert unit_of(f"4:memory:/system.slice/other.service\n0::{path}\n") == unit


def test_only_the_hierarchy_of_version_two_counts() -> None:
    assert unit_of("1:name=systemd:/system.slice/telemetry.service\n") is None
    assert unit_of("10::/system.slice/telemetry.service\n") is None


def test_we_are_ourselves(listener: socket.socket) -> None:
    ours, theirs = connect(listener)
    with ours, theirs:
        found = identify(theirs)
        assert credentials(theirs) == (os.getpid(), os.getuid(), os.getgid())
        assert (found.pid, found.uid, found.path) == (os.getpid(), os.getuid(), MINE)
        assert found.groups == {os.getgid(), *os.getgroups()}
        assert "process" in str(found)


def test_another_pair_than_of_unix_sockets_has_no_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        other, _ = server.accept()
        with other:
            # Linux answers for these, too, but with nobody.
            try:
                found = identify(other)
            except OSError:
                return
            assert (found.pid, found.unit, found.path) == (0, None, None)


def connected_by(program: str, listener: socket.socket) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A program that connects, and the server's end."""
    script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nsys.stdin.read(1)\n"
    process = subprocess.Popen(
        [program, "-c", script, listener.getsockname()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    return process, listener.accept()[0]


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_caller_that_is_gone_has_no_unit_and_no_program(listener: socket.socket) -> None:
    process, theirs = connected_by(sys.executable, listener)
    with theirs:
        assert identify(theirs).path == MINE
        end(process)
        found = identify(theirs)
        assert (found.uid, found.unit, found.path) == (os.getuid(), None, None)


def test_one_that_has_ended_and_was_not_buried_is_gone(listener: socket.socket) -> None:
    process, theirs = connected_by(sys.executable, listener)
    with theirs:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert identify(theirs).path is None
        process.communicate()


@pytest.mark.parametrize("change", ["deleted", "deleted_with_a_link", "replaced"])
def test_a_program_that_is_no_more_what_its_path_names_has_none(
    change: str, listener: socket.socket, tmp_path: Path
) -> None:
    program = tmp_path / "sleeper"
    shutil.copy("/bin/bash", program)
    script = f'exec 3<>/dev/null; "{sys.executable}" -c "" ; read -r _'
    process = subprocess.Popen([str(program), "-c", script], stdin=subprocess.PIPE)
    try:
        assert looked_at(process.pid, listener).path == str(program)
        if change == "deleted_with_a_link":
            os.link(program, f"{program} (deleted)")
        if change != "replaced":
            program.unlink()
        else:
            os.rename(shutil.copy("/bin/bash", tmp_path / "new"), program)
        assert looked_at(process.pid, listener).path is None
    finally:
        end(process)


def under_another_name(program: str, name: Path) -> subprocess.Popen[bytes] | None:
    """The program in a mount namespace of its own, where it lies over `name`; None where none can be made."""
    script = f'mount --bind "{program}" "{name}" && exec "{name}" -c "echo; read -r _"'
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(private, **pipes)  # type: ignore[call-overload]
    if process.stdout.readline() == b"\n":
        return process  # type: ignore[no-any-return]
    end(process)
    return None


def test_a_program_put_over_anothers_name_out_of_our_sight_is_not_the_other(
    listener: socket.socket, tmp_path: Path
) -> None:
    """In a mount namespace of its own any user may do that; where nobody may, this cannot be done to us."""
    name = tmp_path / "telemetry"
    shutil.copy("/bin/true", name)
    process = under_another_name("/bin/bash", name)
    if process is None:
        assert subprocess.run(["unshare", "--user", "--mount", "true"], check=False).returncode != 0
        return
    try:
        assert os.readlink(f"/proc/{process.pid}/exe") == str(name)
        assert looked_at(process.pid, listener, uid=owner_of(process.pid)).path is None
    finally:
        end(process)


def owner_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


class Spoken:
    """A socket that says what a kernel would, of another process or an older kernel."""

    def __init__(self, listener: socket.socket, said: dict[int, bytes | OSError]) -> None:
        self._ours, self._theirs = connect(listener)
        self._said = said

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes:
        said = self._said.get(name)
        if isinstance(said, OSError):
            raise said
        return self._theirs.getsockopt(level, name, size) if said is None else said

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


NO_OPTION = OSError(errno.ENOPROTOOPT, "Protocol not available")


def looked_at(
    pid: int,
    listener: socket.socket,
    *,
    uid: int | None = None,
    proc: Path = Path("/proc"),
    reference: bytes | OSError = NO_OPTION,
) -> Caller:
    """What is told of this process on a kernel that has no references to processes."""
    mine = os.getuid() if uid is None else uid
    said = {socket.SO_PEERCRED: struct.pack("iII", pid, mine, os.getgid()), SO_PEERPIDFD: reference}
    spoken = Spoken(listener, said)
    try:
        return identify(spoken, proc=str(proc))
    finally:
        spoken.close()


def test_without_references_to_processes_the_number_is_looked_at(listener: socket.socket) -> None:
    assert looked_at(os.getpid(), listener).path == MINE


def test_a_number_that_came_to_mean_another_users_process_tells_nothing(listener: socket.socket) -> None:
    found = looked_at(os.getpid(), listener, uid=os.getuid() + 1)
    assert (found.unit, found.path) == (None, None)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_a_process_that_we_cannot_see_tells_nothing(pid: int, listener: socket.socket) -> None:
    assert looked_at(pid, listener).path is None


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL, errno.ENODATA])
def test_a_kernel_that_says_the_process_is_gone_is_believed(code: int, listener: socket.socket) -> None:
    """And the number is not taken instead: it may be somebody else's by now."""
    assert looked_at(os.getpid(), listener, reference=OSError(code, "gone")).path is None


def forged(tmp_path: Path, *, pid: int = os.getpid(), **files: str) -> Path:
    """A /proc in which the process looks like this."""
    folder = tmp_path / "proc" / str(pid)
    folder.mkdir(parents=True)
    for name, text in {"status": f"Uid:\t1\t{os.getuid()}\t1\t1\n", **files}.items():
        (folder / name).write_text(text)
    return tmp_path / "proc"


def test_the_unit_is_read_of_the_process(listener: socket.socket, tmp_path: Path) -> None:
    proc = forged(tmp_path, cgroup="0::/system.slice/telemetry.service\n")
    assert looked_at(os.getpid(), listener, proc=proc).unit == "telemetry.service"


def test_the_unit_of_one_that_has_ended_is_not_told(listener: socket.socket, tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE)
    proc = forged(tmp_path, pid=process.pid, cgroup="0::/system.slice/telemetry.service\n")
    assert looked_at(process.pid, listener, proc=proc).unit == "telemetry.service"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert looked_at(process.pid, listener, proc=proc).unit is None
    process.communicate()


@pytest.mark.parametrize("status", ["", "Uid:", "Uid:\t1\n", "Uid:\tx\ty\n", "\0"])
def test_a_process_whose_user_cannot_be_read_tells_nothing(
    status: str, listener: socket.socket, tmp_path: Path
) -> None:
    proc = forged(tmp_path, status=status, cgroup="0::/system.slice/telemetry.service\n")
    assert looked_at(os.getpid(), listener, proc=proc).unit is None


def test_a_process_that_ends_while_it_is_looked_at_tells_nothing(
    listener: socket.socket, tmp_path: Path
) -> None:
    """Then its number may have come to mean another one, of which the rest was read."""
    process = subprocess.Popen(["sleep", "600"])
    proc = forged(tmp_path, pid=process.pid)
    pipe = proc / str(process.pid) / "cgroup"
    os.mkfifo(pipe)

    def answer() -> None:
        with pipe.open("w") as written:
            process.kill()
            process.wait()
            written.write("0::/system.slice/telemetry.service\n")

    thread = threading.Thread(target=answer)
    thread.start()
    assert looked_at(process.pid, listener, proc=proc).unit is None
    thread.join(20)


def test_more_groups_than_can_be_asked_for_are_none(listener: socket.socket) -> None:
    spoken = Spoken(listener, {59: OSError(errno.ERANGE, "Numerical result out of range")})
    try:
        assert identify(spoken).groups == {os.getgid()}
    finally:
        spoken.close()


def test_a_caller_is_told_in_one_line_of_text_whatever_its_program_is_called() -> None:
    """As a refusal and a line of the log have it: no line of its own, no escape, nothing that is no text."""
    named = str(Caller(7, 8, frozenset(), "a.service", "/tmp/x\n<0>all is \x1b[31mlost\udcff"))
    assert named == "process 7 of user 8, unit a.service, program /tmp/x?<0>all is ?[31mlost?"
    named.encode()
    unknown = "process 7 of user 8, unit none that can be told, program none that can be told"
    assert str(Caller(7, 8, frozenset())) == unknown
