"""How do transactions of concurrent requests share one durable commit in SQLite, which has one writer?

Whoever holds the writer runs everybody's waiting work, each in a savepoint of its own, and commits once.
While that commit reaches the disk, the next group gathers. Nobody's call returns before the commit that holds
its work.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from attestd.store.engine import T, Work
from attestd.store.errors import StoreUnavailable

MOST = 64
"""Transactions in one commit: a bound on how long the first waits for the last."""


class _Job:
    """One caller's work and what became of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False


class GroupCommit:
    """One writer at a time in this process, and one commit for all who wait. `patience` in seconds."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._writer = threading.Lock()
        self._waiting: deque[_Job] = deque()

    def write(self, work: Work[T]) -> T:
        """The work's result once it is durable, or the work's own exception once it is undone."""
        job = _Job(work)
        self._waiting.append(job)
        if not self._writer.acquire(timeout=self._patience):
            # If a leader holds the job already it may yet be committed: unknown, as when a connection breaks.
            if job in self._waiting:
                self._waiting.remove(job)
            raise StoreUnavailable("the writer has been busy for too long")
        try:
            while not job.done:
                self._lead()
        finally:
            self._writer.release()
        if job.error is not None:
            raise job.error
        return cast(T, job.result)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is written meanwhile, unless the current group takes longer than our patience."""
        held = self._writer.acquire(timeout=self._patience)
        try:
            yield
        finally:
            if held:
                self._writer.release()

    def _lead(self) -> None:
        """Run and commit the next group, and tell each of it what became of it."""
        jobs = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            self._transact(jobs)
        except BaseException as error:
            for job in jobs:
                job.error = StoreUnavailable(f"the commit was lost: {error}")
            if not isinstance(error, sqlite3.Error | StoreUnavailable):
                raise
        finally:
            for job in jobs:
                job.done = True

    def _transact(self, jobs: list[_Job]) -> None:
        connection = self._connect()
        try:
            # Not deferred: a transaction that reads first could not become a writer behind another's back.
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._run(connection, job)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _run(self, connection: sqlite3.Connection, job: _Job) -> None:
        """One job in its savepoint: its exception undoes this job alone."""
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(connection)
        except Exception as error:
            if not connection.in_transaction:
                # SQLite itself has undone everything, as it does on a full disk.
                raise StoreUnavailable(str(error)) from error
            job.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
