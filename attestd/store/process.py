"""What may a forked worker not share with its parent?

A database connection: two processes on one socket garble it, and SQLite's locks belong to the process that
took them, so that a child which goes on with its parent's connection believes in locks that it does not hold.
"""

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One `T` a process, made at its first use there, and closed before the process forks."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], None]) -> None:
        self._make = make
        self._close = close
        # By process id: a child neither uses nor closes what its parent had in use while it forked.
        self._made: dict[int, T] = {}
        _EVERY.add(self)

    def get(self) -> T:
        """This process's own. Of two threads that come first at once, both get the same."""
        mine = self._made.get(os.getpid())
        return mine if mine is not None else self._made.setdefault(os.getpid(), self._make())

    def close(self) -> None:
        """Close this process's own, if there is one."""
        mine = self._made.pop(os.getpid(), None)
        if mine is not None:
            self._close(mine)


_EVERY: "weakref.WeakSet[PerProcess[Any]]" = weakref.WeakSet()


def _close_every() -> None:
    for each in list(_EVERY):
        each.close()


os.register_at_fork(before=_close_every)
