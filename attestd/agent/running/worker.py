"""Where does what blocks happen, while a loop goes on?

In one thread, one piece of work after the other. It is a daemon: a server that hangs does not keep the
process from ending.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Worker:
    """Started at the first piece of work; `close` lets it end with the one that it has."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._since: float | None = None

    def busy_for(self) -> float:
        """Seconds since it began with what it is at; 0 while it rests."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Who stops waiting for it does not stop it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((work, future, loop))
        return await future

    def close(self, patience: float) -> bool:
        """Has it ended within so many seconds?"""
        if self._thread is None:
            return True
        self._jobs.put(None)
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future, loop = job
            self._since = time.monotonic()
            try:
                result, error = work(), None
            except Exception as raised:
                result, error = None, raised
            self._since = None
            with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
