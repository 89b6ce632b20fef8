"""A resource with its guard, a running service, an attested agent: let in, and refused within two seconds
after the machine was lost."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestd.resource.caller import Denied, Request
from attestd.resource.credentials import ByCertificate, ByKey
from attestd.resource.guard import Guard
from tests.acceptance.serving import Serving
from tests.attestd.oauth.agents import GONE, Agent, digest
from tests.attestd.oauth.world import LOGIN, TOOLS, World
from tests.attester import PrivateKey
from tests.deployment import SERVER

SECONDS = 2.0


def pem(key: PrivateKey, path: Path) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    world = World.create(tmp_path / "service")
    with Serving.create(world) as made:
        yield made
    world.deployment.close()


@pytest.fixture
def guard(serving: Serving, tmp_path: Path) -> Guard:
    by_key = ByKey(TOOLS, pem(serving.world.tools.key, tmp_path / "tools.pem"))
    at = f"http://127.0.0.1:{serving.port}"
    return Guard(issuer=SERVER, audience=TOOLS, introspection=by_key, reached_at=at)


def request(agent: Agent, token: str, **claims: Any) -> Request:
    members = {"htm": "POST", "htu": f"{TOOLS}/run", "ath": digest(token), "nonce": GONE, **claims}
    headers = [("Authorization", f"DPoP {token}"), ("DPoP", agent.dpop(**members))]
    return Request("POST", "/run", headers)


def ban(world: World) -> None:
    world.deployment.operate("device", "ban", world.machine.device_id)


def lose_posture(world: World) -> None:
    changed = world.machine.later().extended(7, b"\x01" * 32)
    ends = world.deployment.live(world.machine)
    world.deployment.problem(world.deployment.round(changed).body(), 403, "posture_rejected", ends=ends)


@pytest.mark.parametrize("end", [ban, lose_posture], ids=lambda end: end.__name__)
def test_oa_9_an_agent_that_acts_for_a_user_is_let_in_until_its_machine_is_lost(
    serving: Serving, guard: Guard, end: Callable[[World], None]
) -> None:
    world, agent = serving.world, serving.world.agent()
    token = world.delegated(agent, world.login.token(), scope="plan.read")
    caller = guard.check(request(agent, token), "plan.read")
    assert (caller.agent, caller.user, caller.user_issuer) == (agent.client_id, "alice", LOGIN)
    assert caller.actors == (agent.client_id,)
    assert (caller.scopes, caller.assurance) == (frozenset({"plan.read"}), "ek_verified")
    assert caller.policy == "plant@1"
    end(world)
    time.sleep(SECONDS)
    with pytest.raises(Denied) as caught:
        guard.check(request(agent, token), "plan.read")
    assert (caught.value.status, caught.value.error) == (401, "invalid_token")


def test_other_tokens_of_the_service_and_for_others_are_none(serving: Serving, guard: Guard) -> None:
    world, agent = serving.world, serving.world.agent()
    attestation = world.agent("planner", "client-attestation")
    ledger = world.token(agent, resource="https://ledger.example.org")["access_token"]
    for token in (agent.text, attestation.text, world.login.token(), ledger):
        with pytest.raises(Denied) as caught:
            guard.check(request(agent, token))
        assert (caught.value.status, caught.value.error) == (401, "invalid_token")
    own = world.token(agent)["access_token"]
    assert guard.check(request(agent, own)).user is None
    with pytest.raises(Denied) as caught:
        guard.check(request(agent, own), "plan.admin", "help")
    assert caught.value.status == 403
    with pytest.raises(Denied) as caught:
        guard.check(request(world.agent("helper"), own))
    assert caught.value.status == 401


def test_a_resource_that_the_service_does_not_know_lets_nobody_in(
    serving: Serving, guard: Guard, tmp_path: Path
) -> None:
    world, agent = serving.world, serving.world.agent()
    token = world.token(agent)["access_token"]
    stranger = ByKey(TOOLS, pem(world.ledger.key, tmp_path / "ledger.pem"))
    at = f"http://127.0.0.1:{serving.port}"
    with pytest.raises(Denied) as caught:
        Guard(issuer=SERVER, audience=TOOLS, introspection=stranger, reached_at=at).check(
            request(agent, token)
        )
    assert caught.value.status == 503
    assert guard.check(request(agent, token)).agent == agent.client_id


def test_a_resource_with_an_svid_asks_over_mtls_about_a_token_that_is_bound_to_a_certificate(
    tmp_path: Path,
) -> None:
    world = World.create(tmp_path / "service")
    asker, agent = world.agent("loner", "x509-svid"), world.agent("planner", "x509-svid")
    with (world.deployment.directory / "attestd.toml").open("a") as file:
        entry = f'audience = "{TOOLS}"\njwks = "file:tools.jwks"\nclient_id = "{asker.client_id}"'
        file.write(f"[[resource]]\n{entry}\n")
    chain = tmp_path / "asker.pem"
    chain.write_text(asker.text)
    with Serving.create(world, mtls=True) as serving:
        assert serving.authority is not None
        connection = serving.open(agent)
        form = {"grant_type": "client_credentials", "client_id": agent.client_id, "resource": TOOLS}
        token = serving.post("/oauth/token", form, connection=connection).members["access_token"]
        connection.close()
        guard = Guard(
            issuer=SERVER,
            audience=TOOLS,
            introspection=ByCertificate(
                asker.client_id,
                chain,
                pem(asker.key, tmp_path / "asker.key"),
                f"https://127.0.0.1:{serving.port + 1}/oauth/introspect",
            ),
            reached_at=f"https://127.0.0.1:{serving.port}",
            ca_file=serving.authority.pem,
            check_every=0,
        )
        shown = [("Authorization", f"Bearer {token}")]
        for _ in range(3):
            caller = guard.check(Request("GET", "/run", shown, agent.certificate))
            assert caller.agent == agent.client_id
        for other in (None, asker.certificate):
            with pytest.raises(Denied) as caught:
                guard.check(Request("GET", "/run", shown, other))
            assert caught.value.status == 401
    world.deployment.close()
