"""How much do we hold of what clients have sent, and is one of them to give way?"""

from collections.abc import Hashable
from typing import Final

LIMIT: Final = 256 * 1024 * 1024
SMALL: Final = 64 * 1024


class Held:
    """Bytes by connection. Beyond the limit those with large unfinished bodies give way, nobody else."""

    def __init__(self, limit: int = LIMIT, small: int = SMALL) -> None:
        self._limit = limit
        self._small = small
        self._by: dict[Hashable, int] = {}
        self._total = 0

    def __contains__(self, connection: Hashable) -> bool:
        return connection in self._by

    def count(self, connection: Hashable, size: int) -> bool:
        """The connection holds `size` bytes now; True if that is more than there is room for."""
        self._total += size - self._by.get(connection, 0)
        self._by[connection] = size
        return self._total > self._limit and size > self._small

    def forget(self, connection: Hashable) -> None:
        self._total -= self._by.pop(connection)
