"""Was this proof used before?

A proof is good for one request (RFC 9449, section 11.1). Each is remembered until it is too old to be
accepted anyway, and not longer.
"""

import contextlib
import hashlib
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

from attestd.resource.caller import Refused

CAPACITY: Final = 200_000
"""Proofs that one process remembers, about 30 MB: 1,600 requests a second for two minutes."""
_BUCKET_SECONDS: Final = 60


class Replays(Protocol):
    """Where used proofs are remembered."""

    def spend(self, key: bytes, *, until: int, now: float) -> bool:
        """True the first time, and False for ever after. `until` is when the proof is too old, in seconds
        since the epoch. Refused `temporarily_unavailable` when no more can be remembered. Thread-safe."""


class MemoryReplays:
    """For an application of one process. Several processes share a `DirectoryReplays`."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._spent: OrderedDict[bytes, int] = OrderedDict()
        self._latest = 0.0
        self._full_until = -1

    def spend(self, key: bytes, *, until: int, now: float) -> bool:
        digest = hashlib.sha256(key).digest()[:16]
        with self._lock:
            # What ended before the latest time seen is forgotten; a clock that goes back revives nothing.
            self._latest = max(self._latest, now)
            if until < self._latest or digest in self._spent:
                return False
            if len(self._spent) >= self._capacity:
                self._make_room()
            self._spent[digest] = until
            # Proofs come in about the order in which they end: two a call keep the table short.
            for _ in range(2):
                self._forget_oldest()
        return True

    def _forget_oldest(self) -> None:
        digest, until = next(iter(self._spent.items()))
        if until < self._latest:
            del self._spent[digest]

    def _make_room(self) -> None:
        """To forget a proof early would give it a second life."""
        if self._full_until < self._latest:
            for digest in [digest for digest, until in self._spent.items() if until < self._latest]:
                del self._spent[digest]
            # Not to be looked through again before there is something to forget.
            self._full_until = min(self._spent.values(), default=0)
        if len(self._spent) >= self._capacity:
            raise Refused("temporarily_unavailable", "Too many proofs are remembered; try again later.")


class DirectoryReplays:
    """For an application of several processes on one machine, and across its restarts: a file for each proof,
    in a directory for each minute, which only they may write to."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory, for its owner alone."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._latest = 0.0
        self._swept = 0

    def spend(self, key: bytes, *, until: int, now: float) -> bool:
        self._latest = max(self._latest, now)
        self._sweep(int(self._latest) // _BUCKET_SECONDS)
        if until < self._latest:
            return False
        bucket = self._directory / str(until // _BUCKET_SECONDS)
        try:
            bucket.mkdir(mode=0o700, exist_ok=True)
            # The file system decides which of two processes was first.
            (bucket / hashlib.sha256(key).hexdigest()).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        except OSError:
            raise Refused(
                "temporarily_unavailable", "Proofs cannot be remembered; try again later."
            ) from None
        return True

    def _sweep(self, minute: int) -> None:
        if minute <= self._swept:
            return
        self._swept = minute
        with contextlib.suppress(OSError):
            for bucket in self._directory.iterdir():
                # One bucket of grace for a process whose clock reading is a little older than ours.
                if bucket.name.isdecimal() and int(bucket.name) < minute - 1:
                    shutil.rmtree(bucket, ignore_errors=True)
