"""The loop that everything is served from: it shows what changed, asks once for many, and ends when told."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest

from attestd.agent.errors import Misconfigured, Refusal, Unreachable
from attestd.agent.holdings import Held, Holdings
from attestd.agent.logs import LogFiles
from attestd.agent.running.demand import AGAIN_MS, ASKED_A_MINUTE, PROOFS_A_MINUTE, Demands
from attestd.agent.running.home import Home
from attestd.agent.running.keeper import Keeper
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.running.worker import Worker
from attestd.agent.settings import Settings
from attestd.agent.state import State
from attestd.agent.token import Asked
from attestd.agent.transport import Server
from tests.attestd.agent.delivery.delivered import spelled
from tests.attestd.agent.far_side import CHALLENGE, FarSide, challenge, member_of
from tests.attestd.agent.running.simulated import BUNDLE, SECOND, Clock, Line, World, workload, world
from tests.attestd.agent.tools import Tools
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

A, B, C = ("https://a.example.org",), ("https://b.example.org",), ("https://c.example.org",)
ATTEST = "/v1/attestations"
BUILDER = workload("builder", "x509-svid", "jwt-svid", audiences=A + B)
HELD = Held(BUILDER, 0, None, None, None, {})


@pytest.fixture
def here(software_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[World]:
    with world(
        tmp_path, software_tpm, BUILDER, workload("telemetry", "x509-svid", key="tpm", audiences=A)
    ) as made:
        yield made
        assert leftovers(software_tpm) == {}


def keeper_of(here: World) -> Keeper:
    upkeep = here.boot()
    home = Home(here.tpm.tcti, here.state, lambda url: Line(url, weather=here.weather), LogFiles())
    demands = Demands(home, here.settings, lambda: upkeep.holdings, clock=here.clock)
    return Keeper(upkeep, demands, clock=here.clock)


def running(keeper: Keeper, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do this while the keeper runs; it then ends when told."""

    async def both() -> None:
        stop = asyncio.Event()
        kept = asyncio.create_task(keeper.run(stop))
        try:
            async with asyncio.timeout(20):
                await keeper_ready(keeper)
                await work()
        finally:
            stop.set()
            start = time.monotonic()
            await kept
            assert time.monotonic() - start < 2

    asyncio.run(both())


async def keeper_ready(keeper: Keeper) -> None:
    """Until it holds something."""
    seen = keeper.holdings
    while not seen.held:
        seen = await keeper.changed(seen)


async def refused(asked: Awaitable[object]) -> Exception:
    try:
        await asked
    except (Refusal, Unreachable, Misconfigured) as error:
        return error
    raise AssertionError("this was not refused")


def test_who_waits_for_another_picture_gets_it_when_there_is_one(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        first = keeper.holdings
        waiting = [asyncio.create_task(keeper.changed(first)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        keeper.reconfigure(replace(here.settings, workloads=(BUILDER,)))
        second = await waiting[0]
        assert [await task for task in waiting] == [second] * 3
        assert await keeper.changed(first) in (second, keeper.holdings)
        seen = keeper.holdings
        while seen.held.keys() != {"builder"}:
            seen = await keeper.changed(seen)

    running(keeper, work)


def test_a_jwt_svid_is_made_for_the_audiences_that_are_named_and_for_no_others(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        wanted: list[tuple[str, ...]] = [A, B, A + B]
        for audiences in wanted:
            svid = await keeper.jwt_svid("builder", audiences)
            claims = jwt.decode(svid.text, options={"verify_signature": False})
            assert (tuple(claims["aud"]), claims["sub"]) == (audiences, svid.spiffe_id)
            assert svid.audiences == audiences
        rounds = here.weather.count(ATTEST)
        foreign: list[tuple[str, tuple[str, ...]]] = [
            ("builder", C),
            ("builder", A + C),
            ("builder", ()),
            ("stranger", A),
            ("telemetry", A),
        ]
        for agent, others in foreign:
            assert isinstance(await refused(keeper.jwt_svid(agent, others)), Misconfigured)
        assert here.weather.count(ATTEST) == rounds

    running(keeper, work)


def test_it_is_kept_until_half_of_its_life_and_asked_for_once_for_all_who_want_it(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        rounds = here.weather.count(ATTEST)
        found = await asyncio.gather(*(keeper.jwt_svid("builder", A) for _ in range(20)))
        assert here.weather.count(ATTEST) == rounds + 1
        assert len({svid.text for svid in found}) == 1
        here.clock.now += 140 * SECOND
        assert await keeper.jwt_svid("builder", A) is found[0]
        here.clock.now += 20 * SECOND
        assert await keeper.jwt_svid("builder", A) is not found[0]

    running(keeper, work)


def test_one_that_gives_up_does_not_take_it_from_the_others(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        first, second = (asyncio.create_task(keeper.jwt_svid("builder", A)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).audiences == A
        with suppress(asyncio.CancelledError):
            await first
        assert first.cancelled()

    running(keeper, work)


def test_a_key_that_was_retired_ends_what_is_kept(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        kept = await keeper.jwt_svid("builder", A)
        here.withdraw(here.rotate("jwt"))
        seen = keeper.holdings
        here.clock.now += 61 * SECOND
        keeper.reconfigure(replace(here.settings))
        await keeper.changed(seen)
        assert await keeper.jwt_svid("builder", A) is not kept

    running(keeper, work)


class Forged(Line):
    """Gives for each JWT-SVID a token whose claims no parser takes."""

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = Line.post(self, path, body)
        for credential in answer.get("credentials", ()):
            if credential["format"] == "jwt-svid":
                credential["token"] = spelled("[" * 200_000).decode()
        return answer


def test_ag_1_a_token_that_no_parser_takes_is_told_to_who_asked_and_is_not_kept(here: World) -> None:
    upkeep = here.boot()
    home = Home(here.tpm.tcti, here.state, lambda url: Forged(url, weather=here.weather), LogFiles())
    keeper = Keeper(
        upkeep, Demands(home, here.settings, lambda: upkeep.holdings, clock=here.clock), clock=here.clock
    )

    async def work() -> None:
        for _ in range(2):
            error = await refused(keeper.jwt_svid("builder", A))
            assert (type(error), "is it attestd" in str(error)) == (Unreachable, True)

    running(keeper, work)


def test_of_a_banned_machine_nothing_that_was_kept_is_given(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        assert (await keeper.jwt_svid("builder", A)).audiences == A
        here.deployment.operate("device", "ban", here.device_ids[0])
        seen = keeper.holdings
        keeper.reconfigure(replace(here.settings))
        while seen.held:
            seen = await keeper.changed(seen)
        error = await refused(keeper.jwt_svid("builder", A))
        assert isinstance(error, Refusal)
        assert error.code == "device_banned"

    running(keeper, work)


def test_what_failed_is_not_asked_for_again_at_once_and_callers_do_not_starve_the_rounds(here: World) -> None:
    keeper = keeper_of(here)

    async def work() -> None:
        here.weather.away()
        before = len(here.weather.requests)
        errors = [await refused(keeper.jwt_svid("builder", A)) for _ in range(50)]
        assert {str(error) for error in errors} == {str(errors[0])}
        assert len(here.weather.requests) == before + 1
        here.weather.fair()
        here.clock.now += AGAIN_MS
        assert (await keeper.jwt_svid("builder", A)).audiences == A
        share = ASKED_A_MINUTE // 2
        for number in range(share - 2):
            here.clock.now += 1
            here.weather.fault = Unreachable(str(number))
            error = await refused(keeper.access_token(Asked("builder", A[0], (str(number),))))
            assert str(error) == str(number)
        here.weather.fair()
        assert "more tokens than" in str(await refused(keeper.jwt_svid("builder", B)))
        here.clock.now += 60 * SECOND
        assert (await keeper.jwt_svid("builder", B)).audiences == B

    running(keeper, work)


def test_ag_6_one_workload_does_not_use_up_what_another_may_ask_for(here: World) -> None:
    keeper = keeper_of(here)

    async def asked(agent: str, number: int) -> str:
        return str(await refused(keeper.access_token(Asked(agent, A[0], (str(number),)))))

    async def work() -> None:
        here.weather.fault = Unreachable("away")
        greedy = [await asked("builder", number) for number in range(2 * ASKED_A_MINUTE)]
        assert greedy.count("away") == ASKED_A_MINUTE // 2
        assert {each for each in greedy if each != "away"} == {
            "builder asks for more tokens than this machine asks its service for; wait"
        }
        modest = [await asked("telemetry", number) for number in range(ASKED_A_MINUTE // 2)]
        assert set(modest) == {"away"}

    running(keeper, work)


class Slow(Demands):
    """Its proofs take long, as those of a real TPM do together."""

    begun = 0

    def proof(self, agent: str, access_token: str, method: str, url: str, *, nonce: str | None) -> str:
        self.begun += 1
        time.sleep(0.05)
        return url


def test_ag_6_the_demands_of_one_workload_hold_up_no_renewal_and_nothing_is_done_for_who_went_away(
    here: World,
) -> None:
    upkeep = here.boot()
    home = Home(here.tpm.tcti, here.state, lambda url: Line(url, weather=here.weather), LogFiles())
    demands = Slow(home, here.settings, lambda: upkeep.holdings, clock=here.clock)
    keeper = Keeper(upkeep, demands, clock=here.clock)

    async def work() -> None:
        seen = keeper.holdings
        crowd = [asyncio.create_task(keeper.proof("builder", "t", "GET", str(n), None)) for n in range(100)]
        await asyncio.sleep(0)
        keeper.reconfigure(replace(here.settings, workloads=(BUILDER,)))
        while seen.held.keys() != {"builder"}:
            seen = await keeper.changed(seen)
        assert sum(task.done() for task in crowd) < 50
        for task in crowd[:-1]:
            task.cancel()
        assert await crowd[-1] == "99"
        assert demands.begun < 52

    running(keeper, work)


# --- access tokens --------------------------------------------------------------------------------


@pytest.fixture
def planner(tools: Tools, caller: Agent) -> Keeper:
    """An agent that may call the tools."""
    wanted = workload("planner", "wit-svid", key="tpm", audiences=(tools.audience,))
    settings = Settings(tpm=caller.tpm.tcti, state=caller.state, workloads=(wanted, workload("other")))
    home = Home(caller.tpm.tcti, State(caller.state), Server, LogFiles())
    upkeep = Upkeep(home, settings)
    return Keeper(upkeep, Demands(home, settings, lambda: upkeep.holdings))


def test_an_access_token_and_its_proofs_come_from_one_client_attestation(
    tools: Tools, planner: Keeper, caller: Agent
) -> None:
    async def work() -> None:
        attested = tools.attested()
        all_scopes = await planner.access_token(Asked("planner", tools.audience))
        assert await planner.access_token(Asked("planner", tools.audience)) is all_scopes
        narrow = await planner.access_token(Asked("planner", tools.audience, ("ledger.read",)))
        assert (narrow.scope, tools.attested()) == ("ledger.read", attested + 1)
        url = f"{tools.url}/ledger"
        for token, nonce in ((all_scopes, None), (narrow, "n")):
            proof = await planner.proof("planner", token.text, "GET", url, nonce)
            claims = jwt.decode(proof, options={"verify_signature": False})
            assert (claims["htm"], claims["htu"], claims.get("nonce")) == ("GET", url, nonce)
            assert jwt.get_unverified_header(proof)["jwk"] == token.key.jwk
        for agent, text, there in (
            ("other", narrow.text, url),
            ("planner", narrow.text + "x", url),
            ("planner", narrow.text, "no address"),
        ):
            assert isinstance(await refused(planner.proof(agent, text, "GET", there, None)), Misconfigured)
        elsewhere = Asked("planner", "https://elsewhere.example.org")
        assert isinstance(await refused(planner.access_token(elsewhere)), Misconfigured)

    running(planner, work)
    assert leftovers(caller.tpm) == {}


def test_ag_2_no_proof_is_made_with_what_a_workload_may_not_have_any_more(
    tools: Tools, planner: Keeper, caller: Agent
) -> None:
    async def work() -> None:
        token = await planner.access_token(Asked("planner", tools.audience))

        async def proven() -> bool:
            try:
                return bool(await planner.proof("planner", token.text, "GET", tools.url, None))
            except Misconfigured:
                return False

        wanted = workload("planner", "wit-svid", key="tpm", audiences=(tools.audience,))
        settings = Settings(tpm=caller.tpm.tcti, state=caller.state, workloads=(wanted,))
        assert await proven()
        elsewhere = replace(wanted, audiences=("https://elsewhere.example.org",))
        planner.reconfigure(replace(settings, workloads=(elsewhere,)))
        assert not await proven()
        planner.reconfigure(settings)
        assert await proven()
        tools.service.operate("device", "ban", caller.device_id)
        seen = planner.holdings
        planner.reconfigure(replace(settings))
        while seen.held:
            seen = await planner.changed(seen)
        assert not await proven()
        tools.service.operate("device", "unban", caller.device_id)

    running(planner, work)


def test_ag_6_proofs_are_bounded_by_the_minute(tools: Tools, caller: Agent) -> None:
    wanted = workload("planner", "wit-svid", key="tpm", audiences=(tools.audience,))
    other = replace(wanted, agent="helper")
    settings = Settings(tpm=caller.tpm.tcti, state=caller.state, workloads=(wanted, other))
    home, clock = Home(caller.tpm.tcti, State(caller.state), Server, LogFiles()), Clock()
    demands = Demands(home, settings, lambda: Holdings({"planner": HELD}, {}, None), clock=clock)
    token = demands.access_token(Asked("planner", tools.audience)).text

    def proven() -> bool:
        try:
            return bool(demands.proof("planner", token, "GET", tools.url, nonce=None))
        except Unreachable:
            return False

    assert [proven() for _ in range(PROOFS_A_MINUTE)].count(True) == PROOFS_A_MINUTE // 2
    with pytest.raises(Unreachable, match="planner asks for more proofs than"):
        demands.proof("planner", token, "GET", tools.url, nonce=None)
    clock.now += 60 * SECOND
    assert proven()


def test_a_scope_that_is_not_granted_is_the_services_no(tools: Tools, planner: Keeper) -> None:
    async def work() -> None:
        error = await refused(planner.access_token(Asked("planner", tools.audience, ("everything",))))
        assert isinstance(error, Refusal)
        assert error.error == "invalid_scope"

    running(planner, work)


def test_a_client_attestation_that_the_service_has_ended_is_replaced(
    tools: Tools, planner: Keeper, caller: Agent
) -> None:
    async def work() -> None:
        await planner.access_token(Asked("planner", tools.audience))
        attested = tools.attested()
        tools.service.operate("device", "ban", caller.device_id)
        tools.service.operate("device", "unban", caller.device_id)
        await planner.access_token(Asked("planner", tools.audience, ("ledger.read",)))
        assert tools.attested() == attested + 1

    running(planner, work)


# --- the end --------------------------------------------------------------------------------------


def test_it_ends_at_once_though_its_server_says_nothing_for_ever(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.1)
            yield b"H"

    with FarSide({CHALLENGE: challenge(), BUNDLE: drip}) as far:
        member = member_of(far, Agent(software_tpm, tmp_path / "state", far.url))
        settings = Settings(tpm=software_tpm.tcti, state=member.state, workloads=(BUILDER,))
        home = Home(software_tpm.tcti, State(member.state), lambda url: Server(url, patience=3), LogFiles())
        upkeep = Upkeep(home, settings)
        keeper = Keeper(upkeep, Demands(home, settings, lambda: upkeep.holdings))

        async def work() -> float:
            stop = asyncio.Event()
            task = asyncio.create_task(keeper.run(stop))
            while not far.count(BUNDLE):
                await asyncio.sleep(0.01)
            assert keeper.busy_for() > 0
            start = time.monotonic()
            stop.set()
            await task
            return time.monotonic() - start

        assert asyncio.run(work()) < 2


def test_what_raises_in_the_worker_is_raised_to_who_waits_and_the_worker_goes_on() -> None:
    def fail() -> None:
        raise LookupError("lost")

    async def work() -> None:
        worker = Worker("test")
        assert worker.close(0)
        for _ in range(2):
            with pytest.raises(LookupError, match="lost"):
                await worker.do(fail)
        assert await worker.do(lambda: 7) == 7
        assert worker.busy_for() == 0
        assert worker.close(2)

    asyncio.run(work())


def test_the_worker_begins_what_somebody_waits_for_and_what_is_urgent_first() -> None:
    done: list[int] = []

    async def work() -> None:
        worker, gate = Worker("test"), threading.Event()
        first = asyncio.create_task(worker.do(gate.wait))
        queued = [asyncio.create_task(worker.do(partial(done.append, number))) for number in range(4)]
        urgent = asyncio.create_task(worker.do(partial(done.append, 9), urgent=True))
        await asyncio.sleep(0)
        queued[1].cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, urgent, *queued, return_exceptions=True)
        assert worker.close(2)

    asyncio.run(work())
    assert done == [9, 0, 2, 3]


def test_a_worker_that_is_closed_begins_nothing_and_leaves_nobody_waiting() -> None:
    done: list[int] = []

    async def work() -> None:
        worker, gate = Worker("test"), threading.Event()
        first = asyncio.create_task(worker.do(gate.wait))
        waiting = asyncio.create_task(worker.do(partial(done.append, 1)))
        await asyncio.sleep(0.05)
        assert not worker.close(0)
        gate.set()
        assert await first
        assert worker.close(2)
        late = asyncio.create_task(worker.do(partial(done.append, 2)))
        async with asyncio.timeout(2):
            ended = await asyncio.gather(waiting, late, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2

    asyncio.run(work())
    assert done == []
