"""Whose turn is it: at the TPM, and to be this machine's agent?

Locks of the kernel on files in the state directory: whoever dies, however, lets go of them. The file holds
the process id of who has it; one that is still there when somebody else gets the lock is that of a process
that died with it. A running agent also has a number of its own: process ids come again, in a container at
each start.
"""

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from attestd.agent.errors import Misconfigured
from attestd.agent.state import lured, own_as_directory
from tpm.errors import DeviceError

TURN_SECONDS = 30.0
"""How long one waits for the TPM: whoever has it may be waiting for a server meanwhile."""
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.2
"""Somebody who only looks who runs has the lock for a moment."""
_TPM, _RUN = "tpm.lock", "run.lock"
_THREADS = threading.RLock()
_held: set[Path] = set()


@dataclass(slots=True)
class Turn:
    """`orphaned`: whoever had the turn before died in it. `clean` is set when nothing was left behind."""

    orphaned: bool
    clean: bool = False


class AlreadyRunning(Exception):
    """Another agent runs with this state directory."""


@contextmanager
def tpm_turn(directory: Path | None, *, patience: float = TURN_SECONDS) -> Iterator[Turn]:
    """The TPM is this thread's, of all threads of all processes with this state directory; without one, of
    this process's threads. DeviceError "tpm_in_use" when the turn does not come within `patience` seconds."""
    with _THREADS:
        if directory is None or directory in _held or (file := _opened(directory / _TPM)) is None:
            yield Turn(orphaned=False, clean=True)
            return
        try:
            if not _locked(file, patience):
                who = _written(file) or "unknown"
                raise DeviceError("tpm_in_use", f"another attestd agent ({who}) uses the TPM; try again")
            _held.add(directory)
            turn = Turn(orphaned=bool(_written(file)))
            _write(file, f"pid {os.getpid()}")
            try:
                yield turn
            finally:
                if turn.clean:
                    _write(file, "")
        finally:
            _held.discard(directory)
            os.close(file)


@contextmanager
def tpm_look(directory: Path, *, patience: float) -> Iterator[None]:
    """The same turn for who only looks: no file is made or written, and what somebody left who died at the
    TPM stays for the next turn to flush. DeviceError "tpm_in_use"."""
    with _THREADS:
        file = None
        if directory not in _held:
            with suppress(OSError):
                file = os.open(directory / _TPM, os.O_RDONLY | os.O_NOFOLLOW)
        if file is None:
            yield
            return
        try:
            if not _locked(file, patience):
                who = _written(file) or "unknown"
                raise DeviceError("tpm_in_use", f"another attestd agent ({who}) uses the TPM; try again")
            yield
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Runs:
    """The running agent: `who` is "pid N", or "unknown"; `instance` is a number that no other start has."""

    who: str
    instance: str


@contextmanager
def sole_agent(directory: Path) -> Iterator[str]:
    """This process is the one running agent of the state directory; AlreadyRunning if there is one. Gives
    the instance's number."""
    file = _opened(directory / _RUN)
    if file is None:
        raise Misconfigured(f"{directory} cannot be written; name another --state, or run as its owner")
    try:
        if not _locked(file, _LOOK_SECONDS):
            raise AlreadyRunning(
                f"another agent ({_runs(file).who}) runs with {directory}; stop that one first"
            )
        instance = secrets.token_hex(8)
        _write(file, f"pid {os.getpid()} {instance}")
        yield instance
    finally:
        os.close(file)


def running_agent(directory: Path) -> str | None:
    """Who is the running agent of the state directory ("pid N"); None: there is none."""
    runs = running_instance(directory)
    return None if runs is None else runs.who


def running_instance(directory: Path) -> Runs | None:
    """The same, and which of all that had this process id."""
    try:
        file = os.open(directory / _RUN, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return None if _locked(file, 0) else _runs(file)
    finally:
        os.close(file)


def _opened(path: Path) -> int | None:
    """The lock's file; None where no agent can have one: the directory is not this user's to write. Opened
    for reading only where nothing may be written into it."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            file = os.open(path, flags | os.O_NOFOLLOW, 0o600)
        except OSError:
            continue
        if flags & os.O_RDWR and lured(file, path.parent):
            os.close(file)
            continue
        own_as_directory(file, path.parent)
        return file
    return None


def _locked(file: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _runs(file: int) -> Runs:
    who, _, instance = _written(file).rpartition(" ")
    return Runs(who or "unknown", instance)


def _written(file: int) -> str:
    return os.pread(file, 40, 0).decode("ascii", "replace").strip()


def _write(file: int, text: str) -> None:
    # A file that was opened for reading only is a lock all the same.
    with suppress(OSError):
        # In this order: an empty file says that whoever wrote into it left nothing behind.
        os.pwrite(file, text.encode(), 0)
        os.ftruncate(file, len(text))
