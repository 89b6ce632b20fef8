"""What is kept, and how is it read and written? Two verbs, each one transaction."""

import threading
from typing import Self

from attestd.store.engine import Engine, T, Transaction, Work
from attestd.store.errors import StoreError
from attestd.store.migrations import migrate
from attestd.store.sqlite import SqliteEngine


class Store:
    """The store of one database.

    Threads share it, and forked processes too: connections are opened where they are used.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inside = threading.local()

    @classmethod
    def open(cls, url: str, *, patience: float = 5.0) -> Self:
        """`sqlite:PATH` or `postgresql://…`.

        Touches nothing yet; `patience` is how many seconds a lock is waited for.
        """
        scheme, _, rest = url.partition(":")
        if scheme == "sqlite" and rest:
            return cls(SqliteEngine(rest, patience=patience))
        if scheme in ("postgresql", "postgres"):
            try:
                from attestd.store.postgres import PostgresEngine
            except ImportError as error:
                raise StoreError("PostgreSQL needs its driver: install attestd-tpm[postgres]") from error
            return cls(PostgresEngine(url, patience=patience))
        raise StoreError(f"no such kind of database: {scheme!r}; write sqlite:PATH or postgresql://…")

    def write(self, work: Work[T]) -> T:
        """One durable transaction.

        An exception of `work` undoes it and comes back; StoreUnavailable if it is not kept.

        `work` may run again, and in another thread: it touches `tx` and its own values only.
        """
        return self._engine.write(self._guarded(work))

    def read(self, work: Work[T]) -> T:
        """One consistent snapshot, which `work` cannot change."""
        return self._engine.read(self._guarded(work))

    def migrate(self) -> int:
        """Bring the tables to this version, once; returns its number.

        NewerDatabase if a newer version wrote them.
        """
        return migrate(self._engine)

    def close(self) -> None:
        """Close this process's connections; the next use opens them again."""
        self._engine.close()

    def _guarded(self, work: Work[T]) -> Work[T]:
        """A transaction inside a transaction would wait for itself: say so instead."""
        if getattr(self._inside, "active", False):
            raise RuntimeError("a transaction inside a transaction: pass `tx` on instead")

        def guarded(tx: Transaction) -> T:
            self._inside.active = True
            try:
                return work(tx)
            finally:
                self._inside.active = False

        return guarded
