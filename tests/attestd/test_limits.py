"""Sources and devices are limited by buckets that are bounded, spoof-proof and fair."""

import threading

import pytest

from attestd.limits import Buckets, RateLimits, source_key
from attestd.wire import Problem

NOW = 1_795_628_287_000
DEVICE = "ab" * 32


def refused(limits: RateLimits, source: str, now: int) -> Problem | None:
    try:
        limits.admit_source(source, now=now)
    except Problem as problem:
        return problem
    return None


def test_a_source_has_its_second_of_requests_and_then_waits() -> None:
    limits = RateLimits(50, 60)
    assert [refused(limits, "192.0.2.1", NOW) for _ in range(50)] == [None] * 50
    problem = refused(limits, "192.0.2.1", NOW)
    assert problem is not None
    assert (problem.code, problem.status, problem.cause, problem.retry_after) == (
        "slow_down",
        429,
        "source_rate",
        1,
    )
    assert refused(limits, "192.0.2.2", NOW) is None
    assert refused(limits, "192.0.2.1", NOW + 20) is None
    assert refused(limits, "192.0.2.1", NOW + 20) is not None


def test_ch_8_a_flood_is_told_to_slow_down_and_hurts_nobody_else() -> None:
    limits = RateLimits(50, 60)
    told = [refused(limits, "192.0.2.1", NOW + i // 100) for i in range(100_000)]
    assert 50 <= told.count(None) <= 100
    assert refused(limits, "192.0.2.9", NOW + 1000) is None


def test_a_device_has_its_minute_of_proven_requests() -> None:
    limits = RateLimits(50, 60)
    for _ in range(60):
        limits.admit_device(DEVICE, now=NOW)
    with pytest.raises(Problem, match="slow_down") as caught:
        limits.admit_device(DEVICE, now=NOW)
    assert caught.value.retry_after == 1
    limits.admit_device("cd" * 32, now=NOW)
    limits.admit_device(DEVICE, now=NOW + 1000)


def test_the_wait_that_is_told_is_long_enough() -> None:
    buckets = Buckets(1, 60)
    assert buckets.take("a", now=NOW) is None
    wait = buckets.take("a", now=NOW + 500)
    assert wait == 60
    assert buckets.take("a", now=NOW + 500 + wait * 1000) is None


def test_zero_lifts_a_limit() -> None:
    limits = RateLimits(0, 0)
    for _ in range(1000):
        limits.admit_source("192.0.2.1", now=NOW)
        limits.admit_device(DEVICE, now=NOW)
    limits.return_source("192.0.2.1")


def test_a_proven_request_is_not_counted_against_its_address() -> None:
    limits = RateLimits(2, 0)
    for _ in range(100):
        limits.admit_source("192.0.2.1", now=NOW)
        limits.return_source("192.0.2.1")
    assert refused(limits, "192.0.2.1", NOW) is None
    assert refused(limits, "192.0.2.1", NOW) is None
    assert refused(limits, "192.0.2.1", NOW) is not None


def test_returned_tokens_never_exceed_the_bucket() -> None:
    buckets = Buckets(1, 1)
    buckets.take("a", now=NOW)
    for _ in range(10):
        buckets.give_back("a")
    assert buckets.take("a", now=NOW) is None
    assert buckets.take("a", now=NOW) is not None


def test_ds_6_addresses_of_one_ipv6_subscriber_share_a_bucket() -> None:
    limits = RateLimits(1, 0)
    assert refused(limits, "2001:db8::1", NOW) is None
    assert refused(limits, "2001:db8::ffff:2", NOW) is not None
    assert refused(limits, "2001:db8:0:1::1", NOW) is None


def test_ds_6_an_address_has_one_bucket_however_it_is_written() -> None:
    assert source_key("::ffff:192.0.2.1") == source_key("192.0.2.1") == "192.0.2.1"
    assert source_key("2001:DB8:0:0::1") == source_key("2001:db8::1%eth0")
    assert source_key("not:an:address") == "not:an:address"


def test_what_is_kept_is_bounded_and_the_least_recent_is_forgotten() -> None:
    buckets = Buckets(1, 3600, max_keys=3)
    for key in ("a", "b", "c"):
        buckets.take(key, now=NOW)
    assert buckets.take("a", now=NOW) is not None
    buckets.take("d", now=NOW)
    assert len(buckets) == 3
    assert buckets.take("a", now=NOW) is not None
    assert buckets.take("b", now=NOW) is None


def test_a_clock_that_goes_back_refills_nothing() -> None:
    buckets = Buckets(1, 1)
    assert buckets.take("a", now=NOW) is None
    assert buckets.take("a", now=NOW - 3_600_000) is not None
    assert buckets.take("a", now=NOW + 999) is not None
    assert buckets.take("a", now=NOW + 1000) is None


def test_threads_together_get_no_more_than_one_would() -> None:
    buckets = Buckets(100, 3600)
    granted: list[int] = []

    def ask() -> None:
        granted.append(sum(buckets.take("a", now=NOW) is None for _ in range(200)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 100
