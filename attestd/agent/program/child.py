"""How does a program run below us as if we were not there?

It has our terminal, our standard streams and every descriptor that was meant for it; it gets the signals that
we get, and dies with us. Its end is ours.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
OF_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT})
"""What a terminal sends to all of its foreground, and so to the program itself."""
_PR_SET_PDEATHSIG = 1


class NotStarted(Exception):
    """The program cannot be run; `status` is what a shell would end with."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status


class Child:
    """One running program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(cls, program: Sequence[str], environ: Mapping[str, str]) -> Child:
        """NotStarted if there is no such program."""
        try:
            process = subprocess.Popen(
                program, env=environ, close_fds=False, preexec_fn=_dying_with(os.getpid())
            )
        except FileNotFoundError:
            raise NotStarted(f"{program[0]}: there is no such program", 127) from None
        except OSError as error:
            raise NotStarted(f"{program[0]}: {error.strerror}", 126) from None
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: int) -> None:
        """A signal; none to one that has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, or 128 and the signal that ended it."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(self._process.pid)
        loop.add_reader(descriptor, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        status = self._process.wait()
        return status if status >= 0 else 128 - status


def in_foreground() -> bool:
    """Are we what the terminal sends its signals to?"""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _dying_with(parent: int) -> Callable[[], None]:
    """For the new process, before it becomes the program: whoever kills us kills it."""
    library = ctypes.CDLL(None)

    def prepare() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)

    return prepare
