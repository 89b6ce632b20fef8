"""The socket is made where nobody else could put another, taken over where systemd made it, and removed only
if it is ours."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestd.agent.errors import Misconfigured
from attestd.agent.workload.listening import Listening, adopt, inherited, make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "workload.sock"


@pytest.fixture
def made(path: Path) -> Iterator[Listening]:
    listening = make(path)
    yield listening
    listening.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True


def test_ag_2_anybody_may_connect_and_nobody_may_replace_the_socket(path: Path) -> None:
    before = os.umask(0o077)
    try:
        listening = make(path)
    finally:
        os.umask(before)
    try:
        assert (mode(path), mode(path.parent)) == (0o666, 0o755)
        assert os.lstat(path.parent).st_uid == os.geteuid()
        assert answers(path)
        assert not os.get_inheritable(listening.sock.fileno())
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("others_may_write", lambda run: run.chmod(0o777)),
        ("group_may_write", lambda run: run.chmod(0o775)),
        ("sticky", lambda run: run.chmod(0o1777)),
        ("link", lambda run: (run.rename(run.parent / "real"), run.symlink_to(run.parent / "real"))),
        ("file", lambda run: (run.rmdir(), run.touch())),
        ("file_in_its_place", lambda run: (run / "workload.sock").touch()),
        ("link_in_its_place", lambda run: (run / "workload.sock").symlink_to("/dev/null")),
        ("dangling_link", lambda run: (run / "workload.sock").symlink_to(run.parent / "elsewhere")),
        ("directory_in_its_place", lambda run: (run / "workload.sock").mkdir()),
    ],
)
def test_ag_2_a_place_where_others_could_put_theirs_is_refused(
    what: str, spoil: Callable[[Path], object], path: Path
) -> None:
    path.parent.mkdir(mode=0o755)
    spoil(path.parent)
    with pytest.raises(Misconfigured):
        make(path)
    assert not (path.parent.parent / "elsewhere").exists()


def test_a_directory_that_is_there_is_used(path: Path) -> None:
    path.parent.mkdir(mode=0o750)
    make(path).close()
    assert mode(path.parent) == 0o750


def test_what_a_dead_agent_left_is_replaced(path: Path, made: Listening) -> None:
    before = os.lstat(path).st_ino
    made.sock.close()
    assert not answers(path)
    again = make(path)
    try:
        assert answers(path)
        assert os.lstat(path).st_ino != before or again.made is not None
    finally:
        again.close()


def test_a_living_one_is_not(path: Path, made: Listening) -> None:
    with pytest.raises(Misconfigured, match="another agent listens"):
        make(path)
    assert answers(path)


def test_one_that_has_its_hands_full_is_alive(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        try:
            for _ in range(8):
                caller = socket.socket(socket.AF_UNIX)
                caller.setblocking(False)
                waiting.append(caller)
                caller.connect_ex(str(path))
            with pytest.raises(Misconfigured, match="another agent listens"):
                make(path)
        finally:
            for caller in waiting:
                caller.close()


def test_our_file_goes_with_us_and_anothers_stays(path: Path) -> None:
    first = make(path)
    first.close()
    assert not path.exists()
    first = make(path)
    path.unlink()
    second = make(path)
    first.close()
    assert answers(path)
    second.close()
    assert not path.exists()


def test_a_path_that_no_socket_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="107 bytes"):
        make(tmp_path / ("x" * 108))
    with pytest.raises(Misconfigured, match="No such file"):
        make(tmp_path / "a" / "b" / "c")


HANDED = """
import os, socket, subprocess, sys
from attestd.agent.workload.listening import inherited
environ = dict(os.environ)
environ["LISTEN_PID"] = sys.argv[1] if len(sys.argv) > 1 else str(os.getpid())
sock = inherited(environ, pid=os.getpid())
left = [name for name in environ if name.startswith("LISTEN_")]
child = subprocess.run(["test", "-e", "/proc/self/fd/3"], close_fds=False).returncode
print(None if sock is None else sock.getsockname(), left, child)
"""


def handed(sock: socket.socket, *arguments: str, count: str = "1") -> tuple[int, str]:
    """What a process makes of this socket as its descriptor 3: its status, and what it says."""

    def hand_over() -> None:
        os.dup2(sock.fileno(), 3)
        os.dup2(sock.fileno(), 4)

    process = subprocess.run(
        [sys.executable, "-c", HANDED, *arguments],
        preexec_fn=hand_over,
        close_fds=False,
        env={**os.environ, "LISTEN_FDS": count, "LISTEN_FDNAMES": "workload"},
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout.strip() or process.stderr


def test_the_socket_of_systemd_is_taken_and_not_handed_on(path: Path, made: Listening) -> None:
    assert handed(made.sock) == (0, f"{path} [] 1")


@pytest.mark.parametrize("count", ["0", "", "-1", "x", "1e1", "9999"])
def test_no_socket_is_none(count: str, made: Listening) -> None:
    status, said = handed(made.sock, count=count)
    assert (status, said.split()[0]) == (0, "None")


def test_what_is_for_another_process_is_not_ours(made: Listening) -> None:
    assert handed(made.sock, "1") == (0, "None [] 0")


def test_several_sockets_are_not_guessed_among(made: Listening) -> None:
    status, said = handed(made.sock, count="2")
    assert status == 1
    assert "handed over 2 sockets" in said


@pytest.mark.parametrize("kind", ["tcp", "datagram", "connected"])
def test_a_socket_of_another_kind_is_refused(kind: str, tmp_path: Path) -> None:
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
    given = socket.create_server(("127.0.0.1", 0)) if kind == "tcp" else unix
    with unix, given, pytest.raises(Misconfigured):
        adopt(given)


def test_a_socket_that_was_handed_over_stays(path: Path, made: Listening) -> None:
    adopted = adopt(made.sock.dup())
    assert adopted.path == path
    adopted.close()
    assert answers(path)


def test_nothing_is_inherited_where_nothing_was_said() -> None:
    assert inherited({}, pid=os.getpid()) is None
