"""Have we worked this out before? Values by the digest of what they were made from.

In memory, one a process, bounded by the bytes that the values were made from; the least recently used goes
first. Only pure functions' results belong in here.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

MAX_BYTES: Final = 16 * 1024 * 1024
_LEAST: Final = 4096  # what an entry costs at least, so that their number is bounded too

T = TypeVar("T")


class LogCache:
    """`max_bytes` bounds what the kept values were made from; a log's values take a few times as much."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, size: int, make: Callable[[], T]) -> T:
        """The value of this key, made now if it is not kept; `size` are the bytes it is made from. What
        `make` raises is raised and not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                value: T = self._kept[key][1]
                return value
        value = make()
        cost = max(size, _LEAST)
        with self._lock:
            if cost <= self._max_bytes and key not in self._kept:
                self._kept[key] = (cost, value)
                self._bytes += cost
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][0]
        return value
