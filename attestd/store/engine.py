"""What must a database do to keep this store?"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

Value = str | int | bytes | None
"""What a column holds: TEXT, BIGINT (signed, 64 bits) or BLOB."""

Row = dict[str, Any]

T = TypeVar("T")


class Rows(Protocol):
    """The outcome of one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows an INSERT, UPDATE or DELETE wrote; means nothing with RETURNING."""

    def fetchone(self) -> Any:
        """The next row as a dict of columns, or None."""

    def fetchall(self) -> list[Any]:
        """All remaining rows as dicts of columns."""


class Transaction(Protocol):
    """What a unit of work may do: run statements. It cannot commit; who called it does."""

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> Rows:
        """Portable SQL: `?` for parameters, and in no literal; ON CONFLICT and RETURNING are known."""


Work = Callable[[Transaction], T]


class Engine(Protocol):
    """One kind of database.

    Each call is one transaction; threads may call at once, and so may forked processes.
    """

    def write(self, work: Work[T]) -> T:
        """Run `work` serialisably and return when it is durable. An exception of `work` undoes all of it.

        `work` may run more than once and in another thread, so it must not touch anything but `tx` and its
        own values. Raises StoreUnavailable.
        """

    def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent snapshot, which it cannot change. Raises StoreUnavailable."""

    def close(self) -> None:
        """Close what this process has open; the next use opens anew."""
