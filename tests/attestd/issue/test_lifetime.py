"""Does no credential outlive its policy, its posture or its issuer?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.issue.lifetime import LONGEST_TTL, expiry
from tests.attestd.issue.material import NOW
from tpm.errors import PolicyError

SECOND = NOW - NOW % 1000
"""The second in which NOW lies."""
FAR = 253_402_300_799_000
"""The end of the year 9999."""


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"ttl": 600}, SECOND + 600_000),
        ({"ttl": 600, "posture_until": FAR, "issuer_until": FAR}, SECOND + 600_000),
        ({"ttl": 600, "posture_until": NOW + 60_000}, SECOND + 60_000),
        ({"ttl": 600, "issuer_until": NOW + 60_000}, SECOND + 60_000),
        ({"ttl": 600, "posture_until": NOW + 30_000, "issuer_until": NOW + 60_000}, SECOND + 30_000),
        ({"ttl": (FAR - NOW) // 1000}, SECOND + LONGEST_TTL * 1000),
        ({"ttl": 10**30}, SECOND + LONGEST_TTL * 1000),
        ({"ttl": 1}, SECOND + 1000),
    ],
)
def test_mt_5_the_earliest_end_wins(limits: dict[str, int], expected: int) -> None:
    assert expiry(now=NOW, **limits) == expected


@pytest.mark.parametrize("ttl", [0, -1, -(10**30), True, "3600", 1e999, float("nan"), 3600.0, None])
def test_mt_5_a_time_to_live_that_is_none_is_refused(ttl: object) -> None:
    with pytest.raises(PolicyError) as caught:
        expiry(now=NOW, ttl=ttl)  # type: ignore[arg-type]
    assert caught.value.reason == "ttl"


@pytest.mark.parametrize(
    ("name", "reason"), [("posture_until", "posture_expired"), ("issuer_until", "issuer_expired")]
)
@pytest.mark.parametrize("until", [0, NOW - 1, NOW, NOW + 999])
def test_mt_5_nothing_rests_on_what_has_ended(name: str, reason: str, until: int) -> None:
    with pytest.raises(PolicyError) as caught:
        expiry(now=NOW, ttl=600, **{name: until})
    assert caught.value.reason == reason


moments = st.integers(min_value=10**12, max_value=FAR)


@given(now=moments, ttl=st.integers(min_value=1), posture=st.none() | moments, issuer=st.none() | moments)
def test_an_end_is_a_whole_second_ahead_of_now_and_beyond_nothing(
    now: int, ttl: int, posture: int | None, issuer: int | None
) -> None:
    try:
        end = expiry(now=now, ttl=ttl, posture_until=posture, issuer_until=issuer)
    except PolicyError:
        assert min(limit for limit in (posture, issuer) if limit is not None) < now + 1000
        return
    assert end % 1000 == 0
    assert now < end <= now + ttl * 1000
    assert all(end <= limit for limit in (posture, issuer) if limit is not None)
