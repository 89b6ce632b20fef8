"""Revocation: a client ends its own tokens and what was made of them, and nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from tests.attestd.oauth.world import ACCESS_TOKEN, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.create(tmp_path / "service")
    yield made
    made.deployment.close()


def test_a_client_ends_its_token_and_no_other(world: World) -> None:
    agent = world.agent()
    one, other = (world.token(agent)["access_token"] for _ in range(2))
    reply = world.revoke(agent, one, token_type_hint="refresh_token")
    assert (reply.status, reply.members) == (200, {})
    assert (world.is_active(one), world.is_active(other)) == (False, True)
    record = world.deployment.audit(event="token", decision="accepted")[-1]
    assert record["details"]["revoked"] == jwt.decode(one, options={"verify_signature": False})["jti"]
    assert record["details"]["ended"] == 1


def test_oa_9_everything_that_was_made_of_it_ends_with_it(world: World) -> None:
    second = world.deployment.machine()
    first = world.delegated(world.agent(), world.login.token())
    passed = world.delegated(world.agent("helper", machine=second), first, ACCESS_TOKEN)
    assert world.is_active(passed)
    assert world.revoke(world.agent(), first).status == 200
    assert not world.is_active(passed)


def test_oa_11_a_token_of_another_client_is_not_ended(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    reply = world.revoke(world.agent("helper"), token)
    world.refused(reply, 400, "invalid_grant", "token_of_another")
    assert world.is_active(token)


def test_who_passed_a_token_on_cannot_end_it_for_who_got_it_but_its_own(world: World) -> None:
    first = world.delegated(world.agent(), world.login.token())
    passed = world.delegated(world.agent("helper"), first, ACCESS_TOKEN)
    assert world.revoke(world.agent("helper"), passed).status == 200
    assert (world.is_active(first), world.is_active(passed)) == (True, False)


def test_an_unknown_token_is_answered_like_one_that_ends(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    for unknown in ("x", token[:-1], world.agent().text, world.login.token()):
        assert world.revoke(world.agent(), unknown).status == 200
    assert world.is_active(token)
    assert world.revoke(world.agent(), token).status == 200
    assert world.revoke(world.agent(), token).status == 200


def test_oa_11_who_does_not_authenticate_ends_nothing(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    assert world.post("/oauth/revoke", {"token": token}).error == (401, "invalid_client")
    form = {"token": token, "client_assertion": world.tools.assertion()}
    form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert world.post("/oauth/revoke", form).error == (401, "invalid_client")
    assert world.is_active(token)


def test_without_a_token_there_is_nothing_to_end(world: World) -> None:
    world.refused(world.revoke(world.agent(), None), 400, "invalid_request", "token_missing")


def test_an_assertion_ends_tokens_once(world: World) -> None:
    agent = world.agent()
    assertion = agent.assertion()
    one, other = (world.token(agent)["access_token"] for _ in range(2))
    assert world.revoke(agent, one, client_assertion=assertion).status == 200
    world.refused(world.revoke(agent, other, client_assertion=assertion), 401, "invalid_client", "replayed")
    assert world.is_active(other)
