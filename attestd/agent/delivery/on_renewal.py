"""How does a program that keeps credentials in memory learn that there are new ones?

By a command of the operator's, run after the files have changed: an argument vector, no shell, nothing of
this process but its user and its standard error. It has a bounded time, with everything that it started, and
whether it works changes nothing for the files.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from attestd.agent.errors import plain

PATIENCE_SECONDS = 30.0
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DYING_SECONDS = 2.0
"""From the signal on."""
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


def run_command(
    command: Sequence[str], *, agent: str, files: Path, patience: float = PATIENCE_SECONDS
) -> str | None:
    """None when it ended well, else what went wrong. Of one that was too slow, or cannot be watched, nothing
    is left, nor of its process group, but for what has become another user's and is not ours to kill."""
    told = {"PATH": SEARCHED, "LANG": "C.UTF-8", "ATTESTD_AGENT": agent, "ATTESTD_FILES": str(files)}
    try:
        process = subprocess.Popen(
            command, env=told, cwd="/", stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    except ValueError as error:
        return f"{command[0]}: {error}"
    try:
        late = None if _ended(process.pid, patience) else f"did not end within {patience:g} seconds"
    except Exception as error:  # No descriptor is left for it, say.
        late = f"could not be watched ({plain(error)})"
    if late is not None:
        return f"{command[0]} {late} and {'was killed' if _killed(process) else 'cannot be killed'}"
    status = process.wait()
    if status < 0:
        return f"{command[0]} was ended by signal {-status}"
    return f"{command[0]} ended with status {status}" if status else None


def _killed(process: subprocess.Popen[bytes]) -> bool:
    """With its whole group. It has not been reaped, so its number, and its group's, is nobody else's yet."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_DYING_SECONDS)
    except (PermissionError, subprocess.TimeoutExpired):
        # It has become another user's (setuid). Whenever it ends, no dead process is left.
        threading.Thread(target=process.wait, name="on-renewal-late", daemon=True).start()
        return False
    return True


def _ended(pid: int, seconds: float) -> bool:
    """Has this child ended within so many seconds? It is not reaped."""
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _keep_rights_here() -> None:
    """What this thread starts has none of the capabilities that systemd gave the agent (capabilities(7), of
    each thread its own)."""
    ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


class Commands:
    """One at a time, in a thread of its own: who waits for a slow one are other commands alone. What is
    asked for again before its turn comes runs once."""

    def __init__(self, tell: Callable[[str], None], *, patience: float = PATIENCE_SECONDS) -> None:
        """`tell` is called from that thread with what went wrong."""
        self._tell, self._patience = tell, patience
        self._turn = threading.Condition()
        self._waiting: dict[str, tuple[Sequence[str], Path]] = {}
        self._thread: threading.Thread | None = None

    def run(self, command: Sequence[str], *, agent: str, files: Path) -> None:
        """Soon."""
        with self._turn:
            self._waiting[agent] = (command, files)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="on-renewal", daemon=True)
                self._thread.start()

    def finish(self, seconds: float) -> bool:
        """Have all ended within so many seconds?"""
        with self._turn:
            return self._turn.wait_for(lambda: self._thread is None, seconds)

    def _work(self) -> None:
        try:
            _keep_rights_here()
            while (job := self._next()) is not None:
                agent, command, files = job
                trouble = self._tried(command, agent, files)
                if trouble is not None:
                    self._tell(f"on_renewal of {agent}: {trouble}")
        finally:
            with self._turn:
                if self._thread is threading.current_thread():
                    # It could not even be told. What comes next begins anew.
                    self._thread = None
                    self._turn.notify_all()

    def _next(self) -> tuple[str, Sequence[str], Path] | None:
        """None, and this thread is not the one for what comes later, when nothing waits."""
        with self._turn:
            if not self._waiting:
                self._thread = None
                self._turn.notify_all()
                return None
            agent, (command, files) = next(iter(self._waiting.items()))
            del self._waiting[agent]
        return agent, command, files

    def _tried(self, command: Sequence[str], agent: str, files: Path) -> str | None:
        try:
            return run_command(command, agent=agent, files=files, patience=self._patience)
        except Exception as error:  # The next command runs, whatever this one did.
            return f"{command[0]}: {type(error).__name__}: {plain(error)}"
