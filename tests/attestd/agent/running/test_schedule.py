"""The next try: in the second half of a life, ever later without an answer, slow after a no."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.agent.running.schedule import (
    DENIED_PAUSE,
    HOUR,
    LONGEST_PAUSE,
    LONGEST_REFRESH,
    MINUTE,
    SECOND,
    SHORTEST_REFRESH,
    SHORTEST_RENEWAL,
    TRIES_AN_HOUR,
    Tries,
    pause,
    refresh_at,
    renewal_at,
    withheld_until,
)
from attestd.agent.transport import RETRY_LIMIT
from attestd.agent.trouble import Regime

DRAWS = st.floats(0, 1, exclude_max=True)
FAILURES = st.integers(1, 10_000)


@given(st.integers(0, 2**50), st.integers(20 * SECOND, 8 * 24 * HOUR), DRAWS)
def test_a_renewal_begins_between_half_and_six_tenths_of_the_life(since: int, life: int, draw: float) -> None:
    share = (renewal_at(since, since + life, lambda: draw) - since) / life
    assert 0.49 <= share <= 0.61


@given(st.integers(0, 2**50), st.integers(-HOUR, 2 * SECOND), DRAWS)
def test_what_hardly_lives_is_not_renewed_without_pause(since: int, life: int, draw: float) -> None:
    assert renewal_at(since, since + life, lambda: draw) >= since + SHORTEST_RENEWAL


def test_machines_that_began_together_renew_apart() -> None:
    chance = random.Random(1)
    times = sorted(renewal_at(0, HOUR, chance.random) for _ in range(200))
    assert times[-1] - times[0] > 5 * MINUTE
    assert max(later - earlier for earlier, later in pairwise(times)) < MINUTE


@given(FAILURES, DRAWS, st.sampled_from([Regime.OUTAGE, Regime.FAULT]))
def test_without_an_answer_the_pause_is_somewhere_below_twice_the_last_and_below_five_minutes(
    failures: int, draw: float, regime: Regime
) -> None:
    window = min(LONGEST_PAUSE, SECOND * 2 ** (min(failures, 30) - 1))
    found = pause(regime, failures, lambda: draw)
    assert 0 < found <= window
    assert abs(found - window * draw) <= max(200, 1)


@given(FAILURES, DRAWS, st.integers(0, RETRY_LIMIT))
def test_a_service_that_says_when_is_not_asked_sooner(failures: int, draw: float, told: int) -> None:
    for regime in (Regime.OUTAGE, Regime.DENIED, Regime.PENDING):
        found = pause(regime, failures, lambda: draw, retry_after=told)
        assert told * SECOND <= found <= (told + 330) * SECOND


def test_those_that_were_told_the_same_time_come_back_apart() -> None:
    chance = random.Random(1)
    found = {pause(Regime.OUTAGE, 1, chance.random, retry_after=2) for _ in range(100)}
    assert len(found) > 50
    assert max(found) - min(found) > 900


@given(FAILURES, DRAWS)
def test_a_denial_is_asked_about_every_five_minutes_however_often_it_was(failures: int, draw: float) -> None:
    found = pause(Regime.DENIED, failures, lambda: draw)
    assert 0.9 * DENIED_PAUSE <= found <= 1.1 * DENIED_PAUSE


@pytest.mark.parametrize(("failures", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 300), (99, 300)])
def test_who_waits_for_an_operator_asks_ever_more_slowly(failures: int, seconds: int) -> None:
    found = [pause(Regime.PENDING, failures, lambda draw=draw: draw) for draw in (0.0, 0.999)]  # type: ignore[misc]
    assert 0.89 * seconds <= found[0] / SECOND <= seconds <= found[1] / SECOND <= 1.11 * seconds


def test_what_is_good_has_no_failures_to_count() -> None:
    with pytest.raises(ValueError, match="no failures"):
        pause(Regime.GOOD, 1, lambda: 0.5)


@given(st.integers(0, 2**50), st.one_of(st.none(), st.integers(0, 2**53)), DRAWS)
def test_the_bundle_is_looked_at_within_our_own_bounds_whatever_it_wishes(
    now: int, hint: int | None, draw: float
) -> None:
    wait = refresh_at(now, hint, lambda: draw) - now
    assert 0.9 * SHORTEST_REFRESH <= wait <= LONGEST_REFRESH
    if hint is not None and 60 <= hint <= 3600:
        assert 0.89 * hint * SECOND <= wait <= hint * SECOND


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Regime.OUTAGE, Regime.FAULT, Regime.DENIED, Regime.PENDING]),
            DRAWS,
            st.integers(0, 90 * SECOND),
        ),
        max_size=400,
    )
)
def test_ag_6_no_hour_has_more_than_its_tries_whatever_fails_and_whoever_wakes_it(
    story: list[tuple[Regime, float, int]],
) -> None:
    tries, now, times = Tries(), 0, []
    for regime, draw, early in story:
        tries = tries.failed(regime, now)
        times.append(now)
        # Something changed on the machine: a try is wished for sooner than was planned.
        planned = tries.next_at(now, lambda draw=draw: draw)  # type: ignore[misc]
        now = max(now, tries.not_before(min(planned, now + early)))
    for first, beyond in zip(times, times[TRIES_AN_HOUR:], strict=False):
        assert beyond - first >= HOUR


def test_the_pauses_begin_anew_where_something_else_is_the_trouble() -> None:
    tries = Tries()
    for _ in range(8):
        tries = tries.failed(Regime.OUTAGE, 0)
    assert tries.in_a_row == 8
    assert tries.failed(Regime.DENIED, 0).in_a_row == 1
    assert tries.failed(Regime.FAULT, 0).in_a_row == 9


def test_an_hour_of_outage_costs_about_forty_tries() -> None:
    chance, counts = random.Random(5), []
    for _ in range(50):
        tries, now, count = Tries(), 0, 0
        while now < HOUR:
            tries, count = tries.failed(Regime.OUTAGE, now), count + 1
            now = tries.next_at(now, chance.random)
        counts.append(count)
    assert 25 < sum(counts) / len(counts) < 45


@given(DRAWS)
def test_machines_that_were_given_nothing_together_ask_again_apart(draw: float) -> None:
    wait = withheld_until(7, lambda: draw) - 7
    assert 0.9 * HOUR <= wait <= 1.1 * HOUR
    assert withheld_until(7, lambda: 0.1) != withheld_until(7, lambda: 0.9)


def test_a_try_that_an_operator_asked_for_takes_nothing_of_the_hours_and_lengthens_no_pause() -> None:
    tries = Tries().failed(Regime.OUTAGE, 0)
    for now in range(1, 100):
        tries = tries.failed(Regime.OUTAGE, now, counts=False)
    assert (tries.in_a_row, tries.times) == (1, (0,))
    assert tries.failed(Regime.OUTAGE, 100).in_a_row == 2
    assert Tries().failed(Regime.DENIED, 0, counts=False).in_a_row == 1
