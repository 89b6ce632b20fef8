"""How is a flood of refusals recorded without becoming a flood of records?

Who has not proven to be a device can make us refuse as often as they like. The first few refusals of a minute
and code have a record each; the rest are counted, and have one record when the minute ends. Each process
counts for itself; one that dies loses the count of its current minute.
"""

import threading
from collections.abc import Callable, Sequence

from attestd.store.audit import AuditEvent, Event, record_time

MINUTE_MS = 60_000


class CountedRefusals:
    """`limit`: records a minute and code; 0 gives every refusal its own.

    Bounded: codes and events are our own words.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._minute = 0
        self._admitted: dict[str, int] = {}
        self._counted: dict[tuple[Event, str], int] = {}
        self._ended: list[AuditEvent] = []

    def admit(self, event: Event, code: str, now: int) -> bool:
        """True: record this refusal. False: it has been counted and will be recorded with the others."""
        if self._limit == 0:
            return True
        with self._lock:
            self._turn(now)
            self._admitted[code] = self._admitted.get(code, 0) + 1
            if self._admitted[code] <= self._limit:
                return True
            self._counted[event, code] = self._counted.get((event, code), 0) + 1
            return False

    def flush(
        self, now: int, record: Callable[[Sequence[AuditEvent]], object], *, closing: bool = False
    ) -> None:
        """Record the minutes that ended (when closing: the current one too).

        What `record` fails to keep is kept here.
        """
        with self._lock:
            self._turn(now, closing=closing)
            ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            record(ended)
        except BaseException:
            with self._lock:
                self._ended = ended + self._ended
            raise

    def _turn(self, now: int, *, closing: bool = False) -> None:
        """Begin a new minute if it is one; a clock that went back begins one too."""
        minute = now // MINUTE_MS
        if minute == self._minute and not closing:
            return
        since = record_time(self._minute * MINUTE_MS)
        for (event, code), count in self._counted.items():
            counted = AuditEvent(
                event=event,
                decision="refused",
                code=code,
                cause="counted",
                count=count,
                details={"minute": since},
            )
            self._ended.append(counted)
        self._minute = minute
        self._admitted.clear()
        self._counted.clear()
