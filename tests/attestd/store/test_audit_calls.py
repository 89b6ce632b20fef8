"""Calls are counted, recorded in time, and never lost to a store that was not there."""

from collections.abc import Sequence

import pytest

from attestd.store.audit_calls import WINDOW_MS, CallCounter, Calls
from attestd.store.errors import StoreUnavailable

NOW = 1_764_000_000_000


def flushed(counter: CallCounter, now: int, *, closing: bool = False) -> list[tuple[str, str, int]]:
    found: list[Calls] = []
    counter.flush(now, found.extend, closing=closing)
    return [(call.token_id, call.resource, call.count) for call in found]


def test_the_first_call_is_due_at_once_and_later_ones_after_a_minute() -> None:
    counter = CallCounter()
    counter.note("t", "r", now=NOW)
    counter.note("t", "other", now=NOW)
    assert flushed(counter, NOW) == [("t", "r", 1), ("t", "other", 1)]
    for second in range(3):
        counter.note("t", "r", now=NOW + second * 1000)
    assert flushed(counter, NOW + WINDOW_MS - 1) == []
    assert flushed(counter, NOW + WINDOW_MS) == [("t", "r", 3)]
    assert flushed(counter, NOW + 2 * WINDOW_MS) == []


def test_what_is_not_due_yet_is_recorded_when_the_service_ends() -> None:
    counter = CallCounter()
    counter.note("t", "r", now=NOW)
    flushed(counter, NOW)
    counter.note("t", "r", now=NOW + 1)
    assert flushed(counter, NOW + 2) == []
    assert flushed(counter, NOW + 2, closing=True) == [("t", "r", 1)]


def test_calls_that_could_not_be_recorded_are_kept() -> None:
    counter = CallCounter()
    counter.note("t", "r", now=NOW)

    def away(calls: Sequence[Calls]) -> None:
        raise StoreUnavailable("no")

    with pytest.raises(StoreUnavailable):
        counter.flush(NOW, away)
    assert flushed(counter, NOW + 1) == [("t", "r", 1)]


def test_a_clock_that_went_back_keeps_nothing_waiting() -> None:
    counter = CallCounter()
    counter.note("t", "r", now=NOW)
    flushed(counter, NOW)
    counter.note("t", "r", now=NOW - 5000)
    assert flushed(counter, NOW - 5000) == [("t", "r", 1)]
