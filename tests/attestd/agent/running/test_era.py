"""What the service ends because this machine started anew is served to nobody, and replaced at once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.agent.running.demand import Demands
from attestd.agent.running.era import Era
from attestd.agent.running.keeper import Keeper
from attestd.agent.running.upkeep import Upkeep
from tests.attestd.agent.running.simulated import HOUR, MINUTE, World, workload, world
from tests.serving import FRESH
from tpm.swtpm import SoftwareTpm

A = ("https://a.example.org",)
ATTEST = "/v1/attestations"
BUILDER = workload("builder", "x509-svid", "jwt-svid", audiences=A)
LONG = FRESH.replace('ttl = "5m"', 'ttl = "24h"')
OTHER = LONG.replace(f'0 = ["sha256:{"00" * 32}"]', f'0 = ["sha256:{"11" * 32}"]')


@pytest.fixture
def here(software_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, software_tpm, BUILDER, policies=(LONG,)) as made:
        yield made


@pytest.fixture
def running(here: World) -> Upkeep:
    """The agent with its identity."""
    upkeep = here.boot()
    upkeep.work()
    assert upkeep.holdings.held
    return upkeep


def demands_of(here: World, upkeep: Upkeep) -> Demands:
    return Demands(here.home, here.settings, lambda: upkeep.holdings, clock=here.clock)


def a_minute_before_its_round(here: World, upkeep: Upkeep) -> None:
    while upkeep.standing().next_at > here.clock.now + MINUTE:
        here.until(upkeep, min(upkeep.standing().next_at - MINUTE, here.clock.now + HOUR))


def ended(here: World) -> list[bool]:
    """Of all that the service gave, oldest first: has it ended it?"""
    rows = here.deployment.rows("SELECT revoked_at FROM credentials ORDER BY issued_at, rowid")
    return [row["revoked_at"] is not None for row in rows]


@pytest.mark.parametrize("how", ["hibernated", "booted"])
def test_an_attestation_on_demand_that_shows_another_start_has_a_round_follow_at_once(
    here: World, running: Upkeep, how: str
) -> None:
    demands = demands_of(here, running)
    before = running.holdings.held["builder"].x509
    here.clock.now += MINUTE
    here.tpm.restart() if how == "hibernated" else here.tpm.reset()
    demands.jwt_svid("builder", A)
    assert ended(here) == [True, False]
    assert running.due() <= here.clock.now
    running.work()
    after = running.holdings.held["builder"].x509
    assert after is not None
    assert after != before
    assert ended(here) == [True, False, False]
    rounds = here.weather.count(ATTEST)
    here.after(running, HOUR)
    assert here.weather.count(ATTEST) == rounds


def test_an_attestation_on_demand_of_the_same_start_changes_no_plan(here: World, running: Upkeep) -> None:
    demands, due = demands_of(here, running), running.due()
    here.clock.now += MINUTE
    svid = demands.jwt_svid("builder", A)
    assert running.due() == due
    running.work()
    assert ended(here) == [False, False]
    assert demands.kept_jwt_svid("builder", A, now=here.clock.now) is svid


def test_a_round_that_is_due_for_another_start_and_fails_keeps_to_its_pauses(
    here: World, running: Upkeep
) -> None:
    demands = demands_of(here, running)
    here.tpm.restart()
    demands.jwt_svid("builder", A)
    here.weather.away()
    here.weather.requests.clear()
    here.until(running, here.clock.now + HOUR, most=200)
    assert len(here.weather.requests) <= 60


def test_what_was_given_before_another_start_is_not_served_from_memory(here: World, running: Upkeep) -> None:
    demands, rounds = demands_of(here, running), here.weather.count(ATTEST)
    a_minute_before_its_round(here, running)
    old = demands.jwt_svid("builder", A)
    here.tpm.restart()
    here.after(running, 2 * MINUTE)
    assert here.weather.count(ATTEST) == rounds + 2
    assert ended(here) == [True, True, False]
    assert demands.kept_jwt_svid("builder", A, now=here.clock.now) is None
    new = demands.jwt_svid("builder", A)
    assert new != old
    assert demands.kept_jwt_svid("builder", A, now=here.clock.now) is new


def test_what_was_given_before_a_refusal_is_not_served_after_it(here: World, running: Upkeep) -> None:
    demands = demands_of(here, running)
    a_minute_before_its_round(here, running)
    demands.jwt_svid("builder", A)
    assert demands.kept_jwt_svid("builder", A, now=here.clock.now) is not None
    here.deployment.apply(OTHER, "policy-0.toml")
    here.after(running, 2 * MINUTE)
    assert running.standing().trouble is not None
    here.deployment.apply(LONG, "policy-0.toml")
    here.after(running, 10 * MINUTE)
    assert running.standing().trouble is None
    assert demands.kept_jwt_svid("builder", A, now=here.clock.now) is None


def test_the_running_loop_does_that_round_at_once(here: World) -> None:
    upkeep = here.boot()
    keeper = Keeper(upkeep, demands_of(here, upkeep), clock=here.clock)

    async def both() -> None:
        stop = asyncio.Event()
        kept = asyncio.create_task(keeper.run(stop))
        async with asyncio.timeout(20):
            while not keeper.holdings.held:
                await keeper.changed(keeper.holdings)
            first = keeper.holdings
            here.tpm.restart()
            await keeper.jwt_svid("builder", A)
            assert (await keeper.changed(first)).held["builder"] != first.held["builder"]
        stop.set()
        await kept

    asyncio.run(both())


def test_the_first_attestation_ends_nothing_and_neither_does_the_same_start_again() -> None:
    era = Era()
    era.saw((3, 1))
    era.saw((3, 1))
    assert era.number == 0
    era.saw((3, 2))
    era.saw((4, 0))
    assert era.number == 2
    era.ended()
    assert era.number == 3
