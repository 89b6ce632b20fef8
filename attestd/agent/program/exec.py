"""How does a program get credentials that knows nothing of any of this? It is run with files that are kept
fresh while it runs.

They lie in a directory of its user alone, in memory, that goes with it. Whoever is killed leaves one behind;
the next run of the same user removes it: a lock that the kernel lets go of says that nobody is there.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestd.agent.delivery.directory import secret_directory
from attestd.agent.delivery.generations import Generations, remove_tree
from attestd.agent.errors import Misconfigured
from attestd.agent.program.child import FORWARDED, OF_TERMINAL, Child, in_foreground
from attestd.agent.program.supply import SLICE_SECONDS, Supply
from attestd.agent.program.wallet import STEM
from attestd.clock import now_ms

SHARED_MEMORY = Path("/dev/shm")
GATHER_SECONDS = 0.1
_PREFIX = "attestd-exec."
_NAME = re.compile(re.escape(_PREFIX) + "[0-9a-f]{16}")
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `program` with its arguments, in `environ`, as `agent` (None: the default) with a JWT-SVID
    for `audiences`; `notice` is the signal that tells it of new files (None: none). It waits `patience`
    seconds for an identity."""

    program: tuple[str, ...]
    environ: Mapping[str, str]
    socket: Path
    agent: str | None
    audiences: tuple[str, ...]
    notice: int | None
    patience: float


async def execute(plan: Plan, *, say: Callable[[str], None], clock: Callable[[], int] = now_ms) -> int:
    """Runs it; the exit status. Refusal, Unreachable or Misconfigured before it has begun, NotStarted."""
    with private_directory(plan.environ) as (folder, directory), ExitStack() as signals:
        files = Generations(directory, STEM)
        supply = Supply(plan.socket, agent=plan.agent, audiences=plan.audiences, clock=clock)
        run = _Run(plan, folder, files, supply, say)
        signals.enter_context(run.signals())
        async with supply.running():
            return await run(clock)


class _Run:
    def __init__(
        self, plan: Plan, folder: Path, files: Generations, supply: Supply, say: Callable[[str], None]
    ) -> None:
        self._plan, self._folder, self._files, self._supply, self._say = plan, folder, files, supply, say
        self._shown: dict[str, bytes] = {}
        self._child: Child | None = None
        self._stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __call__(self, clock: Callable[[], int]) -> int:
        first = asyncio.create_task(self._supply.first(self._plan.patience, self._say))
        either: set[asyncio.Future[Any]] = {first, self._stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._stopped.done():
            first.cancel()
            return 128 + self._stopped.result()
        first.result()
        self._settle(clock())
        told = self._supply.wallet.environment(self._folder, self._plan.socket, clock())
        self._child = Child.start(self._plan.program, {**self._plan.environ, **told})
        ended = asyncio.create_task(self._child.ended())
        while not ended.done():
            self._supply.turned.clear()
            due = self._supply.wallet.due(clock())
            rest = SLICE_SECONDS if due is None else min(SLICE_SECONDS, max(0, due - clock()) / 1000)
            turned = asyncio.create_task(self._supply.turned.wait())
            either = {ended, turned}
            await asyncio.wait(either, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            if turned.done() and not ended.done():
                # What one round brings comes by several streams; the program is told once.
                await asyncio.wait({ended}, timeout=GATHER_SECONDS)
            turned.cancel()
            if self._tried(clock()) and self._plan.notice is not None and not ended.done():
                self._child.send(self._plan.notice)
        return ended.result()

    def _tried(self, now: int) -> bool:
        """A full memory must not end the program; the next change or slice tries again."""
        try:
            return self._settle(now)
        except (OSError, Misconfigured) as error:
            self._say(f"the files were not renewed: {error}")
            return False

    def _settle(self, now: int) -> bool:
        """Let the files be what may be used now. Is there anything new?"""
        fresh = self._supply.wallet.files(now)
        new = any(self._shown.get(name) != content for name, content in fresh.items())
        if new:
            self._files.publish(fresh)
        self._files.remove(self._shown.keys() - fresh.keys())
        self._shown = fresh
        return new

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While it lasts, what we are sent goes to the program, or ends the waiting for it."""
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in FORWARDED:
                loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        if self._child is None:
            if not self._stopped.done():
                self._stopped.set_result(number)
        elif number not in OF_TERMINAL or not in_foreground():
            self._child.send(number)


@contextmanager
def private_directory(environ: Mapping[str, str]) -> Iterator[tuple[Path, int]]:
    """A new directory of this user alone, in memory, and its descriptor; gone at the end. Misconfigured where
    there can be none."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime)] if runtime.startswith("/") else []
    with ExitStack() as opened:
        for place in (*places, SHARED_MEMORY):
            _sweep(place)
            try:
                folder, directory = opened.enter_context(_locked(place))
                break
            except Misconfigured:
                if place == SHARED_MEMORY:
                    raise
        try:
            yield folder, directory
        finally:
            with suppress(OSError):
                parent = os.open(folder.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, parent)
                remove_tree(folder.name, parent)


@contextmanager
def _locked(place: Path) -> Iterator[tuple[Path, int]]:
    """A new directory that nobody takes for one that was left."""
    if not place.is_dir():
        raise Misconfigured(f"{place} is not there; set XDG_RUNTIME_DIR to a directory on a tmpfs")
    for _ in range(_TRIES):
        folder = place / f"{_PREFIX}{secrets.token_hex(8)}"
        with secret_directory(folder) as directory:
            # A sweep may have been faster: then it has the lock, or has removed the directory already.
            if _lock(directory) and os.fstat(directory).st_nlink:
                yield folder, directory
                return
    raise Misconfigured(f"others remove what is made in {place}; set XDG_RUNTIME_DIR to a directory of yours")


def _sweep(place: Path) -> None:
    """Remove what killed runs of this user left."""
    with suppress(OSError):
        parent = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(parent):
                if _NAME.fullmatch(name):
                    _sweep_one(name, parent)
        finally:
            os.close(parent)


def _sweep_one(name: str, parent: int) -> None:
    with suppress(OSError):
        told = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if told.st_uid != os.geteuid() or not stat.S_ISDIR(told.st_mode):
            return
        left = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if _lock(left):
                remove_tree(name, parent)
        finally:
            os.close(left)


def _lock(directory: int) -> bool:
    """Until the descriptor is closed, by whatever end of this process."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
