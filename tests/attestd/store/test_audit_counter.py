"""Is a flood of refusals counted, and nothing of it lost or told twice?"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from attestd.store.audit import AuditEvent
from attestd.store.audit_counter import MINUTE_MS, CountedRefusals
from tests.attestd.store.records import NOW

MINUTE = NOW // MINUTE_MS * MINUTE_MS


def _flush(counted: CountedRefusals, now: int, *, closing: bool = False) -> list[tuple[str, str | None, int]]:
    recorded: list[AuditEvent] = []
    counted.flush(now, recorded.extend, closing=closing)
    return sorted((each.event, each.code, each.count) for each in recorded)


def test_the_first_ten_of_a_code_have_their_own_record_and_the_rest_one() -> None:
    counted = CountedRefusals(10)
    admitted = [counted.admit("attest", "attestation_failed", MINUTE + n) for n in range(25)]
    assert admitted == [True] * 10 + [False] * 15
    assert _flush(counted, MINUTE + 59_999) == []
    assert _flush(counted, MINUTE + 60_000) == [("attest", "attestation_failed", 15)]
    assert _flush(counted, MINUTE + 120_000) == []


def test_ten_refusals_leave_nothing_to_count() -> None:
    counted = CountedRefusals(10)
    assert all(counted.admit("attest", "malformed", MINUTE) for _ in range(10))
    assert _flush(counted, MINUTE + MINUTE_MS) == []


def test_each_code_and_each_minute_counts_anew() -> None:
    counted = CountedRefusals(1)
    assert counted.admit("attest", "malformed", MINUTE)
    assert counted.admit("attest", "nonce_expired", MINUTE)
    assert not counted.admit("attest", "malformed", MINUTE)
    assert counted.admit("attest", "malformed", MINUTE + MINUTE_MS)
    assert _flush(counted, MINUTE + MINUTE_MS) == [("attest", "malformed", 1)]


def test_the_limit_is_the_codes_and_the_count_says_what_was_asked() -> None:
    counted = CountedRefusals(1)
    assert counted.admit("attest", "malformed", MINUTE)
    assert not counted.admit("enroll", "malformed", MINUTE)
    assert not counted.admit("attest", "malformed", MINUTE)
    assert _flush(counted, MINUTE, closing=True) == [("attest", "malformed", 1), ("enroll", "malformed", 1)]


def test_zero_records_every_one() -> None:
    counted = CountedRefusals(0)
    assert all(counted.admit("attest", "malformed", MINUTE) for _ in range(1000))
    assert _flush(counted, MINUTE, closing=True) == []


def test_closing_records_the_minute_that_has_not_ended() -> None:
    counted = CountedRefusals(1)
    for _ in range(4):
        counted.admit("enroll", "enrollment_refused", MINUTE)
    recorded: list[AuditEvent] = []
    counted.flush(MINUTE + 1, recorded.extend, closing=True)
    (event,) = recorded
    assert (event.decision, event.cause, event.count, event.device_id) == ("refused", "counted", 3, None)
    assert event.details == {"minute": "2025-11-25T17:38:00.000Z"}


def test_a_count_that_could_not_be_recorded_is_recorded_later() -> None:
    counted = CountedRefusals(1)
    for _ in range(3):
        counted.admit("attest", "malformed", MINUTE)

    def fail(_: Sequence[AuditEvent]) -> None:
        raise OSError("no store")

    with pytest.raises(OSError, match="no store"):
        counted.flush(MINUTE + MINUTE_MS, fail)
    assert _flush(counted, MINUTE + MINUTE_MS) == [("attest", "malformed", 2)]


def test_threads_lose_no_refusal() -> None:
    counted = CountedRefusals(10)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads meet in every line
    try:
        with ThreadPoolExecutor(8) as pool:
            admitted = list(pool.map(lambda _: counted.admit("attest", "malformed", MINUTE), range(4000)))
    finally:
        sys.setswitchinterval(interval)
    assert sum(admitted) == 10
    assert _flush(counted, MINUTE, closing=True) == [("attest", "malformed", 3990)]
