"""What if a caller passes descriptors along with its bytes (unix(7), SCM_RIGHTS)?

Nobody wants any here, and to let go of one can take hours: of a socket that lingers (socket(7), SO_LINGER),
whoever drops the last reference waits for all to be sent. Reading past one drops it, and so does hanging up.

1. The kernel is told to let nothing be passed (Linux 6.16). It is told by the listening socket, and holds for
   those who connect after that.
2. Before, each connection looks for descriptors before it reads. Where there are some it reads nothing more.
3. A connection that is closed is first searched for what was passed and not read. Where there is something,
   it is closed by a process that ends: for an ending process the kernel waits for nothing.
"""

import errno
import os
import queue
import socket
import subprocess
import threading
from contextlib import suppress
from typing import Any, Self

SO_PASSRIGHTS = 83
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_SIZE = 64 * 1024
_ENDING = "/bin/cat"
"""A program that ends when it has nothing more to read."""
_AT_ONCE = 64
_PATIENCE_SECONDS = 10.0


def refuse(listening: socket.socket, *, option: int = SO_PASSRIGHTS) -> bool:
    """Nothing can be passed to who connects from now on; False where the kernel knows no such option."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, option, 0)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise
        return False
    return True


class Farewell:
    """Closes what may take long to be closed, in a thread of its own."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, descriptor: int) -> None:
        """Close it soon."""
        self._waiting.put(descriptor)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="farewell", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            taken = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(taken) < _AT_ONCE:
                    taken.append(self._waiting.get_nowait())
            _leave(taken)


class Watched(socket.socket):
    """A connection that never drops a descriptor which was passed, neither by reading nor by its end."""

    farewell = Farewell()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """ConnectionAbortedError where the next bytes bring descriptors."""
        came, passed = self._look(size)
        if passed:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the caller passed descriptors")
        # No more than was looked at: what came since is looked at the next time.
        return super().recv(len(came), flags) if came else came

    def close(self) -> None:
        if self.fileno() < 0:
            return
        if self._is_laden():
            self.farewell.take(self.detach())
        else:
            super().close()

    def _look(self, size: int) -> tuple[bytes, bool]:
        """What there is to read, which stays there, and whether it brings descriptors. Without room for them
        the kernel hands out none and says so."""
        came, _, marks, _ = self.recvmsg(size, 0, _LOOK)
        return came, bool(marks & socket.MSG_CTRUNC)

    def _is_laden(self) -> bool:
        """Is there a descriptor in what was not read? From here on nothing more can come."""
        try:
            self.shutdown(socket.SHUT_RDWR)
            while True:
                came, passed = self._look(_SIZE)
                if passed or not came:
                    return passed
                super().recv(len(came))
        except ConnectionError:
            return False
        except OSError:
            return True


class Entrance(socket.socket):
    """A listening socket, whose connections are `Watched`."""

    @classmethod
    def of(cls, listening: socket.socket) -> Self:
        """In place of that one, which is taken over."""
        made = cls(listening.family, listening.type, listening.proto, listening.detach())
        refuse(made)
        return made

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        watched = Watched(accepted.family, accepted.type, accepted.proto, accepted.detach())
        # A byte out of band would be passed over, and dropped, with whatever came along with it.
        watched.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        return watched, address

    def listen(self, backlog: int = 0, /) -> None:
        """It does, with as many waiting as whoever made it wanted."""


def _leave(descriptors: list[int]) -> None:
    """By way of a process that has them, too, and then ends. Where there can be none, this thread waits."""
    try:
        ending = subprocess.Popen(
            [_ENDING], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=descriptors, cwd="/", env={}
        )
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        return
    for descriptor in descriptors:
        os.close(descriptor)
    with suppress(OSError, subprocess.TimeoutExpired):
        ending.communicate(timeout=_PATIENCE_SECONDS)
