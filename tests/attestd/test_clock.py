"""Times are whole milliseconds inside and RFC 3339 outside; durations are seconds with a unit."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.clock import now_ms, parse_duration, parse_rfc3339, rfc3339


def test_now_is_milliseconds_since_the_epoch() -> None:
    assert abs(now_ms() - time.time() * 1000) < 1000


def test_a_time_is_written_in_whole_seconds_of_utc_and_never_later_than_it_is() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1_795_628_287_999) == "2026-11-25T17:38:07Z"


@given(st.integers(min_value=0, max_value=253_402_300_799))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_rfc3339(rfc3339(seconds * 1000)) == seconds * 1000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-25T17:38:07Z", 1_795_628_287_000),
        ("2026-11-25T18:38:07+01:00", 1_795_628_287_000),
        ("2026-11-25T17:38:07.25Z", 1_795_628_287_250),
    ],
)
def test_rfc_3339_is_read_with_its_offset(text: str, ms: int) -> None:
    assert parse_rfc3339(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-25",
        "2026-11-25T17:38:07",
        "2026-11-25 17:38:07Z",
        "2026-11-25T17:38:60Z",
        "2026-13-25T17:38:07Z",
        "2026-W48-3T17:38:07Z",
        "20261125T173807Z",
        "2026-11-25T17:38:07Z\n",
        "٢٠٢٦-11-25T17:38:07Z",
    ],
)
def test_other_writings_of_a_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|second|month"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("10m", 600), ("1h", 3600), ("7d", 604_800), ("0s", 0)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-1s", "1.5h", "1h30m", "10 m", "10M", "1w", "१s", "9999999999s"]
)
def test_other_writings_of_a_duration_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
