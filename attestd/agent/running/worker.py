"""Where does what blocks happen, while a loop goes on?

In one thread, one piece of work after the other. It is a daemon: a server that hangs does not keep the
process from ending.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Worker:
    """Started at the first piece of work; `close` lets it end with the one that it has."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Condition()
        self._urgent: deque[_Job] = deque()
        self._jobs: deque[_Job] = deque()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._since: float | None = None

    def busy_for(self) -> float:
        """Seconds since it began with what it is at; 0 while it rests."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    async def do(self, work: Callable[[], T], *, urgent: bool = False) -> T:
        """What `work` returns or raises. Who stops waiting for it does not stop it, but what nobody waits for
        any more when its turn comes is not begun. What is urgent overtakes all that is not."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._turn:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            if self._closing:
                future.cancel()
            (self._urgent if urgent else self._jobs).append((work, future, loop))
            self._turn.notify()
        return await future

    def close(self, patience: float) -> bool:
        """Has it ended within so many seconds? What has not begun is cancelled."""
        if self._thread is None:
            return True
        with self._turn:
            self._closing = True
            self._turn.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            work, future, loop = job
            if future.done():
                continue
            self._since = time.monotonic()
            try:
                result, error = work(), None
            except Exception as raised:
                result, error = None, raised
            self._since = None
            with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(_settle, future, result, error)
        for _, future, loop in (*self._urgent, *self._jobs):
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(future.cancel)

    def _next(self) -> _Job | None:
        """None when it is to end."""
        with self._turn:
            self._turn.wait_for(lambda: self._closing or self._urgent or self._jobs)
            if self._closing:
                return None
            return (self._urgent or self._jobs).popleft()


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
