"""May this source, or this device, ask again already?

Token buckets in memory, one set a process: they spare work, they are not a promise about totals. What they
hold is bounded; the least recently seen key is forgotten first, which gives it a full bucket at most.
"""

import math
import socket
import threading
from collections import OrderedDict
from typing import Final

from attestd.wire import Problem

MAX_KEYS: Final = 65_536
_ROUNDING: Final = 1e-9  # of the floating point numbers that tokens are


class Buckets:
    """A token bucket for each key: `capacity` tokens, refilled evenly within `period` seconds.

    A capacity of 0 lifts the limit. Times are milliseconds; one that goes back refills nothing.
    """

    def __init__(self, capacity: int, period: int, *, max_keys: int = MAX_KEYS) -> None:
        self._capacity = capacity
        self._per_ms = capacity / (period * 1000)
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._levels: OrderedDict[str | bytes, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str | bytes, *, now: int) -> int | None:
        """None if there was a token, else the whole seconds after which there is one."""
        if not self._capacity:
            return None
        with self._lock:
            tokens, seen = self._levels.pop(key, (float(self._capacity), now))
            tokens = min(self._capacity, tokens + max(0, now - seen) * self._per_ms)
            granted = tokens >= 1 - _ROUNDING
            self._levels[key] = (tokens - 1 if granted else tokens, max(now, seen))
            if len(self._levels) > self._max_keys:
                self._levels.popitem(last=False)
        return None if granted else max(1, math.ceil((1 - tokens) / self._per_ms / 1000 - _ROUNDING))

    def give_back(self, key: str | bytes) -> None:
        """The token was not due after all."""
        with self._lock:
            if key in self._levels:
                tokens, seen = self._levels[key]
                self._levels[key] = (min(self._capacity, tokens + 1), seen)


class RateLimits:
    """The two limits of the configuration: by source until a request is proven, by device afterwards."""

    def __init__(self, unproven_per_second: int, device_per_minute: int) -> None:
        self._sources = Buckets(unproven_per_second, 1)
        self._devices = Buckets(device_per_minute, 60)

    def admit_source(self, source: str, *, now: int) -> None:
        """Before anything is known of who asks. Problem `slow_down` past the limit."""
        wait = self._sources.take(source_key(source), now=now)
        if wait is not None:
            detail = "Too many requests from this address; try again later."
            raise Problem("slow_down", detail, cause="source_rate", retry_after=wait)

    def admit_device(self, device_id: str, *, now: int) -> None:
        """After its signature was verified: whoever cannot sign as it uses up nothing of its share."""
        wait = self._devices.take(device_id, now=now)
        if wait is not None:
            detail = "This device asks too often; try again later."
            raise Problem("slow_down", detail, cause="device_rate", retry_after=wait)

    def return_source(self, source: str) -> None:
        """A proven request is not counted against its address: many devices may share one."""
        self._sources.give_back(source_key(source))


def source_key(address: str) -> str | bytes:
    """What one subscriber holds: an IPv4 address or an IPv6 /64 (its first eight bytes).

    An IPv4 address written as IPv6 is the same source. What is no address (a Unix socket's empty peer) is
    its own key.
    """
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except (OSError, UnicodeError, ValueError):
        return address
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        return socket.inet_ntoa(packed[12:])
    return packed[:8]
