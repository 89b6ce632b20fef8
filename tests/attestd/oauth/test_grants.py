"""The grants: an agent on its own authority, by an assertion of its own, and on behalf of others."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.attestd.oauth.agents import GONE, by_assertion, seconds
from tests.attestd.oauth.world import (
    ACCESS_TOKEN,
    ID_TOKEN,
    JWT,
    JWT_BEARER,
    LEDGER,
    LOGIN,
    OTHER_LOGIN,
    TOOLS,
    Provider,
    Reply,
    World,
    jkt,
)
from tests.attester import new_key
from tests.deployment import SERVER


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World.create(tmp_path_factory.mktemp("grants") / "service")
    yield made
    made.deployment.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """A world of the test's own."""
    made = World.create(tmp_path / "service")
    yield made
    made.deployment.close()


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


# --- jwt-bearer ------------------------------------------------------------------------------------------


def grant_assertion(world: World, **members: Any) -> str:
    return world.agent().assertion(**({"header": {"typ": "JWT"}} | members))


def by_grant(world: World, assertion: str, headers: dict[str, str] | None = None, **form: Any) -> Reply:
    fields = {"grant_type": JWT_BEARER, "assertion": assertion, "resource": TOOLS}
    headers = {"DPoP": world.agent().dpop()} if headers is None else headers
    return world.post("/oauth/token", fields | form, headers)


def test_an_agents_own_assertion_is_a_grant(world: World) -> None:
    for audience in (SERVER, f"{SERVER}/oauth/token"):
        reply = by_grant(world, grant_assertion(world, aud=audience), scope="plan.read")
        assert reply.status == 200, reply
        told = claims(reply.members["access_token"])
        assert told["sub"] == told["client_id"] == world.agent().client_id
        assert (told["cnf"], told["scope"]) == ({"jkt": jkt(world.agent())}, "plan.read")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"aud": "https://else.example.org"}, "assertion_aud"),
        ({"aud": [SERVER, "https://else.example.org"]}, "assertion_aud"),
        ({"aud": GONE}, "assertion_aud"),
        ({"sub": "alice"}, "assertion_sub"),
        (
            {"iss": "spiffe://example.org/agent/nobody/x", "sub": "spiffe://example.org/agent/nobody/x"},
            "assertion_bad_signature",
        ),
        ({"exp": GONE}, "assertion_claim"),
        ({"exp": 1}, "assertion_expired"),
        ({"exp": 4102444800}, "assertion_lifetime"),
        ({"jti": GONE}, "assertion_claim"),
        ({"header": {"typ": "client-authentication+jwt"}}, "assertion_typ"),
        ({"header": {"typ": "wit+jwt"}}, "assertion_typ"),
        ({"header": {"typ": "JWT", "alg": "none"}}, "assertion_alg"),
    ],
)
def test_an_assertion_that_is_wrong_in_one_thing_is_no_grant(
    world: World, changes: dict[str, Any], cause: str
) -> None:
    reply = by_grant(world, grant_assertion(world, **changes))
    world.refused(reply, 400, "invalid_grant", cause)


def test_a_grant_assertion_is_good_once_and_authenticates_no_client_afterwards(world: World) -> None:
    assertion = grant_assertion(world)
    assert by_grant(world, assertion).status == 200
    world.refused(by_grant(world, assertion), 400, "invalid_grant", "replayed")
    again = world.ask(world.agent(), resource=TOOLS, client_assertion=assertion)
    world.refused(again, 401, "invalid_client", "replayed")


def test_an_assertion_of_another_client_than_the_one_that_authenticated_is_refused(world: World) -> None:
    helper = world.agent("helper")
    fields = {"grant_type": JWT_BEARER, "assertion": grant_assertion(world)}
    world.refused(world.ask(helper, **fields), 400, "invalid_grant", "assertion_client")
    own = world.ask(world.agent(), **(fields | {"assertion": grant_assertion(world), "resource": TOOLS}))
    assert own.status == 200, own


def test_a_grant_assertion_is_good_once_beside_client_authentication_too(world: World) -> None:
    fields = {"grant_type": JWT_BEARER, "assertion": grant_assertion(world), "resource": TOOLS}
    assert world.ask(world.agent(), **fields).status == 200
    world.refused(world.ask(world.agent(), **fields), 400, "invalid_grant", "replayed")


def test_a_users_assertion_is_no_grant(world: World) -> None:
    reply = by_grant(world, world.login.token(header={"typ": "JWT"}))
    world.refused(reply, 400, "invalid_grant", "assertion_sub")


def test_an_assertion_without_a_dpop_proof_gives_no_bearer_token(world: World) -> None:
    reply = by_grant(world, grant_assertion(world), {})
    world.refused(reply, 400, "invalid_dpop_proof", "dpop_missing")


# --- token exchange: for a user ---------------------------------------------------------------------------


def test_a_user_delegates_to_an_agent(world: World) -> None:
    agent = world.agent()
    reply = world.exchange(agent, world.login.token(), scope="plan.read")
    assert reply.status == 200, reply
    assert reply.members["issued_token_type"] == ACCESS_TOKEN
    assert reply.members["token_type"] == "DPoP"
    told = claims(reply.members["access_token"])
    assert (told["sub"], told["client_id"]) == ("alice", agent.client_id)
    assert told["act"] == {"sub": agent.client_id}
    assert (told["aud"], told["scope"]) == (TOOLS, "plan.read")
    assert told["urn:attestd:subject_issuer"] == LOGIN
    record = world.deployment.audit(event="token", decision="accepted")[-1]
    assert record["details"]["subject"] == "alice"
    assert record["details"]["subject_issuer"] == LOGIN
    assert json.loads(record["details"]["actors"]) == {"sub": agent.client_id}


def test_the_token_ends_with_the_users_token(world: World) -> None:
    token = world.delegated(world.agent(), world.login.token(exp=seconds() + 30))
    assert claims(token)["exp"] <= seconds() + 30


def test_the_audience_may_be_named_as_audience_too(world: World) -> None:
    reply = world.exchange(world.agent(), world.login.token(), resource=None, audience=LEDGER)
    assert claims(reply.members["access_token"])["aud"] == LEDGER
    both = world.exchange(world.agent(), world.login.token(), audience=LEDGER)
    world.refused(both, 400, "invalid_target", "audiences")


Change = Callable[[World], dict[str, Any]]

OA_7: list[tuple[str, Change, str, str]] = [
    ("no_subject", lambda w: {"subject_token": None}, "invalid_request", "subject_missing"),
    ("no_type", lambda w: {"subject_token_type": None}, "invalid_request", "subject_missing"),
    ("wrong_type", lambda w: {"subject_token_type": ACCESS_TOKEN}, "invalid_request", "subject_typ"),
    (
        "saml",
        lambda w: {"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
        "invalid_request",
        "subject_token_type",
    ),
    ("garbage", lambda w: {"subject_token": "x.y.z"}, "invalid_request", "subject_base64"),
    (
        "expired",
        lambda w: {"subject_token": w.login.token(exp=seconds() - 1)},
        "invalid_request",
        "subject_expired",
    ),
    ("no_exp", lambda w: {"subject_token": w.login.token(exp=GONE)}, "invalid_request", "subject_claim"),
    (
        "not_yet",
        lambda w: {"subject_token": w.login.token(nbf=seconds() + 60)},
        "invalid_request",
        "subject_not_yet",
    ),
    ("other_aud", lambda w: {"subject_token": w.login.token(aud="else")}, "invalid_request", "subject_aud"),
    (
        "aud_list",
        lambda w: {"subject_token": w.login.token(aud=["else", "attestd"])},
        "invalid_request",
        "subject_aud",
    ),
    ("no_aud", lambda w: {"subject_token": w.login.token(aud=GONE)}, "invalid_request", "subject_aud"),
    ("sub_int", lambda w: {"subject_token": w.login.token(sub=7)}, "invalid_request", "subject_claim"),
    (
        "sub_is_an_agent",
        lambda w: {"subject_token": w.login.token(sub=w.agent("helper").client_id)},
        "invalid_request",
        "subject_subject",
    ),
    (
        "iss_prefix",
        lambda w: {"subject_token": w.login.token(iss=LOGIN + "/")},
        "invalid_request",
        "subject_issuer_unknown",
    ),
    (
        "other_issuer",
        lambda w: {"subject_token": Provider(OTHER_LOGIN).token()},
        "invalid_request",
        "subject_issuer_unknown",
    ),
    (
        "other_key",
        lambda w: {"subject_token": Provider(LOGIN).token()},
        "invalid_request",
        "subject_bad_signature",
    ),
    (
        "unknown_kid",
        lambda w: {"subject_token": w.login.token(header={"kid": "../../etc/passwd"})},
        "invalid_request",
        "subject_key_unknown",
    ),
    (
        "alg_none",
        lambda w: {"subject_token": w.login.token(header={"alg": "none"})},
        "invalid_request",
        "subject_alg",
    ),
    (
        "jku",
        lambda w: {"subject_token": w.login.token(header={"jku": LOGIN})},
        "invalid_request",
        "subject_header_key",
    ),
    (
        "crit",
        lambda w: {"subject_token": w.login.token(header={"crit": ["b64"]})},
        "invalid_request",
        "subject_header_unknown",
    ),
    (
        "may_act_other",
        lambda w: {"subject_token": w.login.token(may_act={"sub": "spiffe://example.org/agent/x/y"})},
        "invalid_request",
        "may_act",
    ),
    (
        "may_act_more",
        lambda w: {"subject_token": w.login.token(may_act={"sub": w.agent().client_id, "amr": ["x"]})},
        "invalid_request",
        "may_act",
    ),
    (
        "may_act_null",
        lambda w: {"subject_token": w.login.token(may_act=None)},
        "invalid_request",
        "subject_may_act",
    ),
    ("may_act_text", lambda w: {"subject_token": w.login.token(may_act="*")}, "invalid_request", "may_act"),
    (
        "loop",
        lambda w: {"subject_token": w.login.token(act={"sub": "b", "act": {"sub": w.agent().client_id}})},
        "invalid_request",
        "delegation_loop",
    ),
    (
        "depth",
        lambda w: {
            "subject_token": w.login.token(act={"sub": "a", "act": {"sub": "b", "act": {"sub": "c"}}})
        },
        "invalid_request",
        "delegation_depth",
    ),
    ("act_text", lambda w: {"subject_token": w.login.token(act="b")}, "invalid_request", "subject_act_claim"),
    ("act_empty", lambda w: {"subject_token": w.login.token(act={})}, "invalid_request", "subject_act_claim"),
    ("wider_scope", lambda w: {"scope": "root"}, "invalid_scope", "scope_widened"),
    (
        "wider_than_user",
        lambda w: {"subject_token": w.login.token(scope="plan.read"), "scope": "plan.write"},
        "invalid_scope",
        "scope_widened",
    ),
    ("wider_target", lambda w: {"resource": "https://else.example.org"}, "invalid_target", "target_widened"),
    (
        "refresh",
        lambda w: {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        "invalid_request",
        "requested_token_type",
    ),
    ("id_token", lambda w: {"requested_token_type": ID_TOKEN}, "invalid_request", "requested_token_type"),
    ("actor_without_type", lambda w: {"actor_token": w.agent().text}, "invalid_request", "actor_token_type"),
    ("type_without_actor", lambda w: {"actor_token_type": JWT}, "invalid_request", "actor_token_type"),
    (
        "actor_of_another",
        lambda w: {"actor_token": w.agent("helper").text, "actor_token_type": JWT},
        "invalid_request",
        "actor_other_client",
    ),
    (
        "actor_is_the_user",
        lambda w: {"actor_token": w.login.token(), "actor_token_type": JWT},
        "invalid_request",
        "actor_typ",
    ),
    (
        "actor_id_token",
        lambda w: {"actor_token": w.agent().text, "actor_token_type": ID_TOKEN},
        "invalid_request",
        "actor_token_type",
    ),
]


@pytest.mark.parametrize(
    ("change", "error", "cause"), [row[1:] for row in OA_7], ids=[row[0] for row in OA_7]
)
def test_oa_7_an_exchange_that_is_wrong_in_one_thing_is_refused(
    world: World, change: Change, error: str, cause: str
) -> None:
    tokens = world.count("tokens")
    reply = world.exchange(world.agent(), world.login.token(), **change(world))
    world.refused(reply, 400, error, cause)
    assert world.count("tokens") == tokens


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {"subject_token_type": JWT},
        lambda w: {"requested_token_type": JWT},
        lambda w: {"subject_token": w.login.token(aud=["attestd"])},
        lambda w: {"subject_token": w.login.token(may_act={"sub": w.agent().client_id})},
        lambda w: {"subject_token": w.login.token(may_act={"sub": w.agent().client_id, "iss": SERVER})},
        lambda w: {"subject_token": w.login.token(act={"sub": "a", "act": {"sub": "b"}})},
        lambda w: {"subject_token": w.login.token(scope="plan.read openid"), "scope": "plan.read"},
        lambda w: {"subject_token": w.login.token(header={"kid": GONE})},
        lambda w: {
            "subject_token": w.login.token(header={"typ": "at+jwt"}),
            "subject_token_type": ACCESS_TOKEN,
        },
        lambda w: {"actor_token": w.agent().text, "actor_token_type": JWT},
    ],
)
def test_oa_7_the_healthy_twins_are_granted(world: World, change: Change) -> None:
    reply = world.exchange(world.agent(), world.login.token(), **change(world))
    assert reply.status == 200, reply


def test_who_acted_before_stays_in_the_chain(world: World) -> None:
    subject = world.login.token(
        act={"sub": "butler", "exp": 7, "act": {"sub": "maid", "iss": "https://m.example.org"}}
    )
    told = claims(world.delegated(world.agent(), subject))
    assert told["act"] == {
        "sub": world.agent().client_id,
        "act": {"sub": "butler", "iss": LOGIN, "act": {"sub": "maid", "iss": "https://m.example.org"}},
    }


def test_an_agent_whose_grant_has_no_delegation_acts_for_itself_alone(world: World) -> None:
    loner = world.agent("loner")
    reply = world.exchange(loner, world.login.token())
    world.refused(reply, 400, "unauthorized_client", "delegation_not_granted")
    assert world.token(loner)


def test_users_of_an_issuer_that_the_grant_does_not_name_are_refused(own: World) -> None:
    agent = own.agent()
    policy = (own.deployment.directory / "pcr-policy.toml").read_text()
    own.deployment.apply(
        policy.replace(
            f'issuers = ["{LOGIN}", "{SERVER}"], depth = 3', f'issuers = ["{OTHER_LOGIN}"], depth = 3'
        )
    )
    own.refused(own.exchange(agent, own.login.token()), 400, "invalid_request", "delegation_issuer")
    own.deployment.apply(policy)
    assert own.exchange(agent, own.login.token()).status == 200


# --- token exchange: one of our own tokens goes on ----------------------------------------


def test_a_token_is_passed_on_and_the_chain_grows(world: World) -> None:
    planner, helper = world.agent(), world.agent("helper")
    first = world.delegated(planner, world.login.token(), scope="plan.read plan.write")
    told = claims(world.delegated(helper, first, ACCESS_TOKEN))
    assert (told["sub"], told["client_id"]) == ("alice", helper.client_id)
    assert told["act"] == {"sub": helper.client_id, "act": {"sub": planner.client_id}}
    assert told["scope"] == "plan.read plan.write"
    assert told["cnf"] == {"jkt": jkt(helper)}
    assert told["exp"] <= claims(first)["exp"]
    assert told["urn:attestd:subject_issuer"] == LOGIN


def test_an_agents_own_token_may_be_passed_on_and_its_subject_stays(world: World) -> None:
    planner, helper = world.agent(), world.agent("helper")
    own = world.token(planner, scope="plan.read")["access_token"]
    told = claims(world.delegated(helper, own, ACCESS_TOKEN))
    assert (told["sub"], told["act"]) == (planner.client_id, {"sub": helper.client_id})
    assert "urn:attestd:subject_issuer" not in told


OWN: list[tuple[str, dict[str, Any], str, str]] = [
    ("scope", {"scope": "plan.write"}, "invalid_scope", "scope_widened"),
    ("scope_of_its_own_grant", {"scope": "help"}, "invalid_scope", "scope_widened"),
    ("audience", {"resource": LEDGER}, "invalid_target", "target_widened"),
    (
        "details",
        {"authorization_details": '[{"type":"transfer","actions":["start","stop"],"to":"x"}]'},
        "invalid_authorization_details",
        "details_widened",
    ),
    (
        "details_of_another_kind",
        {"authorization_details": '[{"type":"report"}]'},
        "invalid_authorization_details",
        "details_type",
    ),
    ("kind", {"subject_token_type": ID_TOKEN}, "invalid_request", "subject_typ"),
]


@pytest.mark.parametrize(("form", "error", "cause"), [row[1:] for row in OWN], ids=[row[0] for row in OWN])
def test_what_is_passed_on_gets_no_wider(world: World, form: dict[str, Any], error: str, cause: str) -> None:
    details = '[{"type":"transfer","actions":["start"],"to":"x"}]'
    first = world.delegated(
        world.agent(), world.login.token(), scope="plan.read", authorization_details=details
    )
    helper = world.agent("helper")
    world.refused(world.exchange(helper, first, ACCESS_TOKEN, **form), 400, error, cause)
    told = claims(world.delegated(helper, first, ACCESS_TOKEN))
    assert told["scope"] == "plan.read"
    assert told["authorization_details"] == [{"type": "transfer", "actions": ["start"], "to": "x"}]


def test_a_chain_does_not_come_back_to_who_is_in_it(world: World) -> None:
    planner, helper = world.agent(), world.agent("helper")
    first = world.delegated(planner, world.login.token())
    second = world.delegated(helper, first, ACCESS_TOKEN)
    back = world.exchange(planner, second, ACCESS_TOKEN)
    world.refused(back, 400, "invalid_request", "delegation_loop")
    itself = world.exchange(planner, first, ACCESS_TOKEN)
    world.refused(itself, 400, "invalid_request", "delegation_loop")
    own = world.token(planner)["access_token"]
    world.refused(world.exchange(planner, own, ACCESS_TOKEN), 400, "invalid_request", "delegation_loop")


def test_nobody_passes_on_further_than_everybody_before_allows(world: World) -> None:
    """The helper ends at two actors, though the runner alone would allow three."""
    first = world.delegated(world.agent(), world.login.token())
    second = world.delegated(world.agent("helper"), first, ACCESS_TOKEN)
    third = world.exchange(world.agent("runner"), second, ACCESS_TOKEN)
    world.refused(third, 400, "invalid_request", "delegation_depth")
    assert world.exchange(world.agent("runner"), first, ACCESS_TOKEN).status == 200


def test_nobody_takes_over_further_than_its_own_grant_allows(world: World) -> None:
    """The planner's grant would allow three actors; the helper's own ends at two."""
    known = world.delegated(world.agent(), world.login.token(act={"sub": "butler"}))
    reply = world.exchange(world.agent("helper"), known, ACCESS_TOKEN)
    world.refused(reply, 400, "invalid_request", "delegation_depth")
    assert world.exchange(world.agent("runner"), known, ACCESS_TOKEN).status == 200


def test_what_is_passed_on_is_still_somebodys_for_whom_the_agent_may_act(own: World) -> None:
    """Users of the provider, and agents of this server, each by the helper's grant."""
    helper = own.agent("helper")
    of_user = own.delegated(own.agent(), own.login.token())
    of_agent = own.token(own.agent())["access_token"]
    policy = (own.deployment.directory / "pcr-policy.toml").read_text()
    both = f'issuers = ["{LOGIN}", "{SERVER}"], depth = 2'
    for issuer, good, bad in ((LOGIN, of_user, of_agent), (SERVER, of_agent, of_user)):
        own.deployment.apply(policy.replace(both, f'issuers = ["{issuer}"], depth = 2'))
        assert own.exchange(helper, good, ACCESS_TOKEN).status == 200
        own.refused(own.exchange(helper, bad, ACCESS_TOKEN), 400, "invalid_request", "delegation_issuer")


def test_an_agent_that_may_pass_nothing_on_has_not_passed_it_on(world: World) -> None:
    own = world.token(world.agent("loner"))["access_token"]
    reply = world.exchange(world.agent("helper"), own, ACCESS_TOKEN)
    world.refused(reply, 400, "invalid_request", "delegation_depth")


def test_oa_9_a_subject_token_that_was_ended_is_exchanged_no_more(own: World) -> None:
    planner, helper = own.agent(), own.agent("helper")
    first = own.delegated(planner, own.login.token())
    assert own.exchange(helper, first, ACCESS_TOKEN).status == 200
    assert own.revoke(planner, first).status == 200
    own.refused(own.exchange(helper, first, ACCESS_TOKEN), 400, "invalid_request", "subject_inactive")


def test_oa_9_a_token_of_a_machine_that_lost_its_posture_is_exchanged_no_more(own: World) -> None:
    second = own.deployment.machine()
    first = own.delegated(own.agent(machine=second), own.login.token())
    helper = own.agent("helper")
    assert own.exchange(helper, first, ACCESS_TOKEN).status == 200
    own.deployment.attest(second.rebooted())
    own.refused(own.exchange(helper, first, ACCESS_TOKEN), 400, "invalid_request", "subject_inactive")


@pytest.mark.parametrize("form", ["wit-svid", "jwt-svid", "client-attestation"])
def test_mt_8_no_other_token_of_ours_is_a_subject_token(world: World, form: str) -> None:
    name = "courier" if form == "jwt-svid" else "helper"
    other = world.agent(name, form)
    for kind in (ACCESS_TOKEN, JWT, ID_TOKEN):
        reply = world.exchange(world.agent(), other.text, kind)
        assert reply.error == (400, "invalid_request"), reply


def test_a_token_signed_with_another_key_under_our_name_is_none_of_ours(world: World) -> None:
    first = world.delegated(world.agent(), world.login.token())
    header = jwt.get_unverified_header(first)
    forged = Provider(SERVER, new_key("p256")).token(header=header, **claims(first))
    reply = world.exchange(world.agent("helper"), forged, ACCESS_TOKEN)
    world.refused(reply, 400, "invalid_request", "subject_bad_signature")


def test_the_wit_that_authenticates_is_no_assertion_for_another_grant(world: World) -> None:
    asked = by_assertion(world.agent())
    assert asked.one("client_assertion")
    reply = by_grant(world, world.agent().text)
    world.refused(reply, 400, "invalid_grant", "assertion_typ")
