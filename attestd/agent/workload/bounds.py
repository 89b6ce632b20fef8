"""How much may callers take, so that others are still served?

Connections and open calls for each user, work that costs the service something for each user, and all who
have no rule together. What is refused is counted, and told a few times a minute.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from attestd.agent.workload.answers import unavailable

CONNECTIONS, CONNECTIONS_OF_USER, CONNECTIONS_OF_STRANGERS = 256, 64, 32
"""Of all together, of one user, and of all together whom no rule names."""
CALLS_OF_USER = 256
"""Open at once, streams included."""
WORKS_OF_USER = 8
"""Tokens and proofs under way at once: behind each there may be a round with the service."""
TOLD_A_MINUTE = 10
_MINUTE = 60_000
_K = TypeVar("_K")

log = logging.getLogger("attestd.agent.workload")


class Bounds:
    """What is open now, by user."""

    def __init__(self) -> None:
        self._connections: Counter[int] = Counter()
        self._calls: Counter[tuple[int, bool]] = Counter()
        self._works: Counter[int] = Counter()
        self._strangers = 0

    def enter(self, uid: int) -> bool:
        """May one more connection of this user be? If so it is counted until `leave`."""
        if self._connections.total() >= CONNECTIONS or self._connections[uid] >= CONNECTIONS_OF_USER:
            return False
        self._connections[uid] += 1
        return True

    def enter_stranger(self) -> bool:
        """May one more of those be whom no rule names?"""
        if self._strangers >= CONNECTIONS_OF_STRANGERS:
            return False
        self._strangers += 1
        return True

    def leave(self, uid: int, *, stranger: bool) -> None:
        _less(self._connections, uid)
        self._strangers -= stranger

    @contextmanager
    def call(self, uid: int, *, stranger: bool) -> Iterator[None]:
        """One more call of this user; GRPCError Unavailable where there are too many. What a user's programs
        ask that no rule names takes nothing from those that one names."""
        with _one_more(self._calls, (uid, stranger), CALLS_OF_USER):
            yield

    @contextmanager
    def work(self, uid: int) -> Iterator[None]:
        """One more piece of work for this user, likewise."""
        with _one_more(self._works, uid, WORKS_OF_USER):
            yield


class Refused:
    """How many were refused since the start; the log has the first of each minute and then how many more."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.count = 0
        self._now, self._since, self._told, self._untold = now, 0, 0, 0

    def note(self, what: str) -> None:
        self.count += 1
        now = self._now()
        # Also after the clock went back.
        if not 0 <= now - self._since < _MINUTE:
            if self._untold:
                log.warning("refused %d more local callers before", self._untold)
            self._since, self._told, self._untold = now, 0, 0
        if self._told < TOLD_A_MINUTE:
            self._told += 1
            log.warning("refused a local caller: %s", what)
        else:
            self._untold += 1


@contextmanager
def _one_more(counted: Counter[_K], whose: _K, most: int) -> Iterator[None]:
    if counted[whose] >= most:
        raise unavailable(f"this user has {most} open already; wait for one to end")
    counted[whose] += 1
    try:
        yield
    finally:
        _less(counted, whose)


def _less(counted: Counter[_K], whose: _K) -> None:
    counted[whose] -= 1
    if not counted[whose]:
        del counted[whose]
