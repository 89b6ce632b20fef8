"""What was worked out once is kept by content, within bounds."""

import pytest

from attestd.log_cache import LogCache


def test_a_value_is_made_once() -> None:
    cache, made = LogCache(), iter(["first", "second"])
    for _ in range(3):
        assert cache.get("key", 10, lambda: next(made)) == "first"
    assert next(made) == "second"
    assert cache.get("other", 10, lambda: "another") == "another"


def test_the_least_recently_used_goes_first() -> None:
    cache = LogCache(max_bytes=3 * 4096)
    for key in "abc":
        cache.get(key, 1, lambda: "first")
    cache.get("a", 1, lambda: "second")
    cache.get("d", 1, lambda: "first")
    assert len(cache) == 3
    assert cache.get("a", 1, lambda: "second") == "first"
    assert cache.get("b", 1, lambda: "second") == "second"


def test_what_is_larger_than_all_is_not_kept_and_drives_nothing_out() -> None:
    cache = LogCache(max_bytes=10_000)
    cache.get("a", 1, lambda: "first")
    assert cache.get("b", 10_001, lambda: "large") == "large"
    assert len(cache) == 1


def test_a_failure_is_not_kept() -> None:
    cache = LogCache()

    def fail() -> str:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        cache.get("a", 1, fail)
    assert cache.get("a", 1, lambda: "value") == "value"
