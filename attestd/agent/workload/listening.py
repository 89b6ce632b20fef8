"""On which socket do local programs find the agent?

On the one that systemd made before we were started, or else on one of our own. Anybody may connect to it: who
somebody is, the kernel says, not the file's mode.
"""

import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attestd.agent.errors import Misconfigured
from attestd.agent.workload.passed import Entrance

BACKLOG = 128
DIRECTORY_MODE, SOCKET_MODE = 0o755, 0o666

_FIRST = 3
"""The number of the first descriptor that is handed over (sd_listen_fds(3))."""
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_LONGEST_PATH = 107


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket. `made` is the file that is ours to remove, by device and number; None for one that
    somebody else keeps."""

    sock: socket.socket
    path: Path
    made: tuple[int, int] | None

    def close(self) -> None:
        """The file goes only if it is still the one that we made."""
        self.sock.close()
        if self.made is not None:
            with suppress(FileNotFoundError):
                if _identity(os.lstat(self.path)) == self.made:
                    self.path.unlink()


def inherited(environ: Mapping[str, str], *, pid: int) -> socket.socket | None:
    """The listening Unix socket that systemd handed to the process `pid`, or None if it handed over none.
    Programs that this one starts inherit neither the socket nor, where `environ` is the process's own, the
    variables. Misconfigured for sockets of another kind, or several."""
    mine = environ.get("LISTEN_PID") == str(pid)
    told = environ.get("LISTEN_FDS", "")
    count = int(told) if mine and told.isascii() and told.isdigit() and len(told) < 4 else 0
    if isinstance(environ, MutableMapping):
        for name in _VARIABLES:
            environ.pop(name, None)
    for descriptor in range(_FIRST, _FIRST + count):
        os.set_inheritable(descriptor, False)
    if count == 0:
        return None
    if count > 1:
        raise Misconfigured(f"systemd handed over {count} sockets; the agent's socket unit has one")
    return checked(socket.socket(fileno=_FIRST))


def checked(sock: socket.socket) -> socket.socket:
    """The socket, if it is one that we can serve on; Misconfigured otherwise."""
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens:
        raise Misconfigured("the socket handed over is no listening Unix stream; use ListenStream=/PATH")
    return sock


def adopt(sock: socket.socket) -> Listening:
    """Somebody else's socket, whose file stays when we go; `sock` itself is taken over."""
    name = checked(sock).getsockname()
    path = Path(name if isinstance(name, str) else os.fsdecode(name))
    return Listening(Entrance.of(sock), path, None)


def make(path: Path) -> Listening:
    """A new socket at this path, in a directory that nobody else may write to. What a dead agent left there
    is replaced. Misconfigured where another one listens, or where the place is not safe."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise Misconfigured(f"{path}: a socket's path has at most {_LONGEST_PATH} bytes; choose another")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _check_directory(path.parent)
        _clear(path)
        sock.bind(str(path))
        os.chmod(path, SOCKET_MODE, follow_symlinks=True)
        made = _identity(os.lstat(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        why = error.strerror or "no socket can be made there"
        raise Misconfigured(f"{path}: {why}; the agent makes its socket here, see `socket`") from None
    except Misconfigured:
        sock.close()
        raise
    return Listening(Entrance.of(sock), path, made)


def _check_directory(directory: Path) -> None:
    """It is there or made, and only we or the superuser may put something else in our socket's place."""
    with suppress(FileExistsError):
        directory.mkdir(DIRECTORY_MODE)
        directory.chmod(DIRECTORY_MODE)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise Misconfigured(f"{directory} is no directory (a link is none); the socket needs one of its own")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Misconfigured(
            f"{directory}: others may write there and could put their socket in place of the agent's; "
            "choose a directory of the agent's own, mode 0755"
        )


def _clear(path: Path) -> None:
    """Remove what an agent left that is no more."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Misconfigured(f"{path} is there and is no socket; move it away or choose another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except BlockingIOError:
                pass  # Somebody listens and has much to do.
        raise Misconfigured(f"{path}: another agent listens there; stop it or choose another path")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
