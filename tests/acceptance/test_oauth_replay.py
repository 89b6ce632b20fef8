"""OA-1: a proof that was used is used up, on every worker and after every restart."""

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.serving import Serving
from tests.attestd.oauth.agents import ASSERTION, Agent
from tests.attestd.oauth.world import TOOLS, Reply, World
from tests.postgres import Cluster, postgres_cluster

__all__ = ["postgres_cluster"]


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Serving]:
    """SQLite, one worker."""
    world = World.create(tmp_path / "service")
    yield Serving.create(world)
    world.deployment.close()


@pytest.fixture
def two_workers(tmp_path: Path, postgres_cluster: Cluster) -> Iterator[Serving]:
    options = ["--database", postgres_cluster.fresh()]
    settings = {"audit_unproven": "0", "workers": "2"}
    world = World.create(tmp_path / "service", options=options, settings=settings)
    yield Serving.create(world)
    world.deployment.close()


def fields(agent: Agent, **form: Any) -> dict[str, Any]:
    return {
        "grant_type": "client_credentials",
        "resource": TOOLS,
        "client_assertion_type": ASSERTION,
        "client_assertion": agent.assertion(),
        **form,
    }


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_oa_1_a_restart_gives_no_proof_a_second_life(single: Serving, how: signal.Signals) -> None:
    agent = single.world.agent()
    proof, assertion, attested = (
        agent.dpop(),
        agent.assertion(),
        single.world.agent("helper", "client-attestation"),
    )
    pop = {"OAuth-Client-Attestation": attested.text, "OAuth-Client-Attestation-PoP": attested.pop()}

    def by_attestation() -> Reply:
        form = {"grant_type": "client_credentials", "resource": TOOLS}
        return single.post("/oauth/token", form, {**pop, "DPoP": attested.dpop()})

    single.start()
    assert single.post("/oauth/token", fields(agent), {"DPoP": proof}).status == 200
    assert (
        single.post("/oauth/token", fields(agent, client_assertion=assertion), {"DPoP": agent.dpop()}).status
        == 200
    )
    assert by_attestation().status == 200
    single.stop(how)
    single.start()
    try:
        replayed = single.post("/oauth/token", fields(agent), {"DPoP": proof})
        assert replayed.error == (400, "invalid_dpop_proof")
        replayed = single.post(
            "/oauth/token", fields(agent, client_assertion=assertion), {"DPoP": agent.dpop()}
        )
        assert replayed.error == (401, "invalid_client")
        assert by_attestation().error == (401, "invalid_client")
        assert single.post("/oauth/token", fields(agent), {"DPoP": agent.dpop()}).status == 200
    finally:
        single.stop(signal.SIGTERM)


def test_oa_1_of_many_at_once_on_two_workers_one_is_granted(two_workers: Serving) -> None:
    agent = two_workers.world.agent()
    proof = agent.dpop()
    shared = [fields(agent) for _ in range(16)]
    with two_workers, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda form: two_workers.post("/oauth/token", form, {"DPoP": proof}), shared))
        assert Counter(reply.error for reply in replies) == {(200, ""): 1, (400, "invalid_dpop_proof"): 15}
        assertion = agent.assertion()
        proofs = [agent.dpop() for _ in range(16)]
        form = fields(agent, client_assertion=assertion)
        replies = list(pool.map(lambda one: two_workers.post("/oauth/token", form, {"DPoP": one}), proofs))
        assert Counter(reply.error for reply in replies) == {(200, ""): 1, (401, "invalid_client"): 15}
        own = [(fields(agent), agent.dpop()) for _ in range(8)]
        replies = list(pool.map(lambda one: two_workers.post("/oauth/token", one[0], {"DPoP": one[1]}), own))
        assert [reply.status for reply in replies] == [200] * 8
    served = {line for line in two_workers.log().splitlines() if '"serving"' in line}
    assert len(served) == 1


def test_oa_1_a_resources_assertion_is_good_once_on_two_workers(two_workers: Serving) -> None:
    world = two_workers.world
    token = world.token(world.agent())["access_token"]
    form = {"token": token, "client_assertion_type": ASSERTION, "client_assertion": world.tools.assertion()}
    with two_workers, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: two_workers.post("/oauth/introspect", form), range(8)))
        assert Counter(reply.error for reply in replies) == {(200, ""): 1, (401, "invalid_client"): 7}
