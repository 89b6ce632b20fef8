"""Descriptors that a caller passes are never let go of by the agent itself: it would wait for what they hold.

Each one here is a socket whose last owner waits `LINGER` seconds at its close. Where the kernel refuses what
is passed (Linux 6.16), the tests let it in again, as an older one does.
"""

import array
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from attestd.agent.workload import bounds, passed
from attestd.agent.workload.listening import adopt, make
from attestd.agent.workload.passed import Entrance, Watched, refuse
from tests.attestd.agent.workload.domain import workload
from tests.attestd.agent.workload.serving import Serving, folder, me, serving
from tests.attestd.agent.workload.test_hostile import PREFACE, SETTINGS, is_well, timed

LINGER = 20
SOON = 8
"""Seconds; far more than all of it takes where nobody waits."""
UNKNOWN = 9999
"""No option of any kernel."""


class Lingering:
    """Makes sockets that owe their peers something which these do not read."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.peers: list[socket.socket] = []

    def make(self) -> socket.socket:
        made = socket.create_connection(self.listener.getsockname())
        self.peers.append(self.listener.accept()[0])
        made.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                made.send(bytes(65_536))
        made.setblocking(True)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
        return made

    def send(self, caller: socket.socket, flags: int = 0) -> None:
        """A byte that brings one of them, of which nobody keeps another descriptor."""
        with self.make() as made:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))
            caller.sendmsg([b"P"], [rights], flags)

    def end(self) -> None:
        """Nobody waits for them any more."""
        for each in (*self.peers, self.listener):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()


@pytest.fixture
def lingering() -> Iterator[Lingering]:
    made = Lingering()
    yield made
    made.end()


@contextmanager
def old_kernel(user: str) -> Iterator[Serving]:
    """A served socket to which descriptors can be passed."""
    with folder() as directory:
        made = make(directory / "s")
        handed = socket.socket(fileno=os.dup(made.sock.fileno()))
        with handed, serving(workload("telemetry", user=[user]), listening=made.sock) as there:
            let_in(handed)
            yield replace(there, path=made.path)


def let_in(listening: socket.socket) -> None:
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, passed.SO_PASSRIGHTS, 1)


def connected(there: Serving) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(SOON)
    caller.connect(str(there.path))
    return caller


def is_hung_up_on(caller: socket.socket) -> bool:
    try:
        while caller.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def becomes(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + SOON
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def comes_back_to(count: int) -> bool:
    return becomes(lambda: descriptors() <= count)


def test_a_descriptor_that_is_passed_is_not_read_and_ends_its_connection(lingering: Lingering) -> None:
    with old_kernel(me()) as there, connected(there) as caller:
        assert is_well(there)
        with there.standing_still():
            lingering.send(caller)
        assert is_hung_up_on(caller)
        assert timed(lambda: is_well(there)) < SOON


def test_one_that_comes_with_good_bytes_ends_its_connection_too(lingering: Lingering) -> None:
    with old_kernel(me()) as there, connected(there) as caller:
        caller.sendall(PREFACE + SETTINGS)
        assert caller.recv(1)
        with there.standing_still():
            lingering.send(caller)
        assert is_hung_up_on(caller)
        assert timed(lambda: is_well(there)) < SOON


def test_one_out_of_band_is_seen_before_it_is_passed_over(lingering: Lingering) -> None:
    with old_kernel(me()) as there, connected(there) as caller:
        with there.standing_still():
            lingering.send(caller, socket.MSG_OOB)
            caller.sendall(PREFACE)
        assert is_hung_up_on(caller)
        assert timed(lambda: is_well(there)) < SOON


def test_connections_that_are_refused_with_descriptors_in_them_hold_nothing_up(lingering: Lingering) -> None:
    """More of one user than it may have: what is in them is never read, and all of them are gone soon."""
    with old_kernel(me()) as there:
        held = [connected(there) for _ in range(bounds.CONNECTIONS_OF_USER)]
        assert becomes(lambda: there.do(lambda: len(there.endpoint.listener._open)) == len(held))
        before = descriptors()
        with there.standing_still():
            for _ in range(bounds.CONNECTIONS_OF_USER // 4):
                with connected(there) as caller:
                    lingering.send(caller)
        assert becomes(lambda: there.endpoint.refused == len(lingering.peers))
        # Each of what was passed has a peer, which is ours.
        assert comes_back_to(before + len(lingering.peers))
        for each in held:
            each.close()
        assert timed(lambda: is_well(there)) < SOON


def pair() -> tuple[socket.socket, Watched]:
    caller, accepted = socket.socketpair()
    return caller, Watched(accepted.family, accepted.type, accepted.proto, accepted.detach())


@pytest.mark.parametrize("before", [b"", b"x" * 100_000])
def test_what_was_passed_and_not_read_is_closed_elsewhere(before: bytes, lingering: Lingering) -> None:
    caller, watched = pair()
    with caller:
        caller.sendall(before)
        lingering.send(caller)
        count = descriptors()
        assert timed(watched.close) < LINGER / 4
        assert watched.fileno() == -1
        assert is_hung_up_on(caller)
        assert comes_back_to(count - 1)


def test_who_passed_nothing_is_hung_up_on_at_once() -> None:
    caller, watched = pair()
    with caller:
        caller.sendall(b"x" * 100_000)
        count = descriptors()
        watched.close()
        assert descriptors() == count - 1
        assert is_hung_up_on(caller)


def test_bytes_are_read_whole_and_in_order_and_the_end_is_told() -> None:
    caller, watched = pair()
    said = os.urandom(150_000)
    with caller, watched:
        watched.setblocking(False)
        with pytest.raises(BlockingIOError):
            watched.recv(10)
        caller.sendall(said)
        caller.shutdown(socket.SHUT_WR)
        heard = b""
        while piece := watched.recv(70_000):
            heard += piece
        assert heard == said


@pytest.mark.parametrize("how", ["made", "adopted"])
def test_the_kernel_lets_nothing_be_passed_where_it_knows_how(how: str) -> None:
    with folder() as directory:
        made = make(directory / "s")
        with socket.socket(fileno=os.dup(made.sock.fileno())) as handed:
            if how == "adopted":
                let_in(handed)
                adopt(socket.socket(fileno=os.dup(handed.fileno()))).close()
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(made.path))
                was_refused = is_refused(caller)
            assert was_refused == refuse(handed)
        made.close()


def is_refused(caller: socket.socket) -> bool:
    try:
        socket.send_fds(caller, [b"P"], [0])
    except PermissionError:
        return True
    return False


def test_a_kernel_that_does_not_know_how_is_served_on() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert not refuse(sock, option=UNKNOWN)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            refuse(closed())


def closed() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.close()
    return sock


def test_an_inherited_socket_lets_as_many_wait_as_before() -> None:
    with folder() as directory, socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(directory / "s"))
        theirs.listen(0)
        entrance = Entrance.of(socket.socket(fileno=os.dup(theirs.fileno())))
        entrance.listen(100)
        assert waiting(str(directory / "s")) < 10
        theirs.listen(100)
        entrance.listen(0)
        assert waiting(str(directory / "s")) > 50
        entrance.close()


def waiting(path: str) -> int:
    """How many are let in without being served."""
    callers: list[socket.socket] = []
    try:
        while len(callers) < 100:
            caller = socket.socket(socket.AF_UNIX)
            callers.append(caller)
            caller.setblocking(False)
            if caller.connect_ex(path):
                break
        return len(callers) - 1
    finally:
        for caller in callers:
            caller.close()
