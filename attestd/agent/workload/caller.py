"""Who is at the other end of this connection?

What the kernel says of it, once, when the connection is accepted: user and groups as they were when it was
made, and by the process that made it the systemd unit and the program. Nothing here is said by the caller.

A process number can come to mean another process. Where the kernel hands out a reference to the very process
that connected (SO_PEERPIDFD, Linux 6.5) that is noticed; before, only if it happens after the connection was
accepted or brings another user. Whoever is gone has no unit and no program.
"""

import errno
import os
import re
import select
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from attestd.agent.errors import plain

SO_PEERGROUPS = 59
SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("iII")
_MOST_READ = 16 * 1024
_MOST_GROUPS = 256
"""That one system call of Python's brings."""

_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}\.(service|scope|socket|mount|swap)")
_SLICE = re.compile(r"[A-Za-z0-9:_.\\-]{1,255}\.slice")
_DELETED = " (deleted)"


class Connected(Protocol):
    """A connected Unix socket, as far as it matters here."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """`groups` has the primary one, too. `unit` and `path` are None where they cannot be told: the process
    has no unit, is gone, or may not be looked at (other users' programs need CAP_SYS_PTRACE)."""

    pid: int
    uid: int
    groups: frozenset[int]
    unit: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        # A program's path is as its user likes it: lines of a log, or bytes that are no text.
        unit, path = (plain(told or "none that can be told") for told in (self.unit, self.path))
        return f"process {self.pid} of user {self.uid}, unit {unit}, program {path}"


def credentials(connection: Connected) -> tuple[int, int, int]:
    """Process, user and group as numbers (unix(7), SO_PEERCRED); process 0 is one that we cannot see."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def identify(connection: Connected, *, proc: str = "/proc") -> Caller:
    """The caller. OSError where this is no Unix socket."""
    pid, uid, gid = credentials(connection)
    groups = frozenset({gid, *_supplementary(connection)})
    process = _process(connection, pid)
    if process is None:
        return Caller(pid, uid, groups)
    try:
        folder = f"{proc}/{pid}"
        # Where the reference was made from the number: another user's process is another one.
        same = process.is_callers or _owner(folder) == uid
        unit, path = _unit(folder), _program(folder)
        # As long as the process lives, its number means no other one: all was read of it.
        if not same or process.has_ended():
            return Caller(pid, uid, groups)
        return Caller(pid, uid, groups, unit, path)
    finally:
        os.close(process.descriptor)


def unit_of(cgroup: str) -> str | None:
    """The system unit that a process belongs to, by what /proc/PID/cgroup says (cgroups(7), version 2).

    It is the first part of the path that is no slice: down to there only the system's manager makes groups.
    What is below belongs to the unit itself, which may call it as it likes: a user's own manager is
    `user@1000.service`, whatever its units are called, and a container is the unit that started it.
    """
    for line in cgroup.splitlines():
        if line.startswith("0::/"):
            for part in line.removeprefix("0::/").split("/"):
                if _SLICE.fullmatch(part) is None:
                    # The manager escapes what the kernel would take for a file of its own.
                    name = part.removeprefix("_")
                    return name if _UNIT.fullmatch(name) else None
    return None


def _supplementary(connection: Connected) -> tuple[int, ...]:
    """Nothing where there are more than fit: too few groups refuse, too many would let somebody in."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


@dataclass(frozen=True, slots=True)
class _Process:
    """A reference to one process, whatever its number comes to mean; `is_callers` if the kernel says that it
    is the one which connected."""

    descriptor: int
    is_callers: bool

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))


def _process(connection: Connected, pid: int) -> _Process | None:
    """None if it has ended or cannot be seen."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
        return _Process(struct.unpack("i", raw)[0], True)
    except OSError as error:
        # Any other answer than that there is no such option says that the process is gone.
        if error.errno != errno.ENOPROTOOPT or pid <= 0:
            return None
    with suppress(OSError):
        return _Process(os.pidfd_open(pid), False)
    return None


def _owner(folder: str) -> int | None:
    """The user that the process acts as now (proc_pid_status(5))."""
    with suppress(OSError, ValueError, IndexError):
        for line in _read(f"{folder}/status").splitlines():
            if line.startswith(b"Uid:"):
                return int(line.split()[2])
    return None


def _unit(folder: str) -> str | None:
    with suppress(OSError, ValueError):
        return unit_of(_read(f"{folder}/cgroup").decode())
    return None


def _program(folder: str) -> str | None:
    """The path of the program, if the file that runs is the one that is there now as we see it: a process
    may have put another file over the name in a mount namespace of its own."""
    with suppress(OSError, ValueError):
        link = f"{folder}/exe"
        path = os.readlink(link)
        if path.startswith("/") and not path.endswith(_DELETED):
            running, there = os.stat(link), os.stat(path)
            if (running.st_dev, running.st_ino) == (there.st_dev, there.st_ino):
                return path
    return None


def _read(path: str) -> bytes:
    """A file that the kernel makes when it is read, in one piece."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_READ)
    finally:
        os.close(descriptor)
