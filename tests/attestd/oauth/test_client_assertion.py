"""`private_key_jwt`: is the assertion by an attested key of this client, for this server, short and once?"""

from dataclasses import replace
from typing import Any

import jwt
import pytest

from attestd.clock import now_ms
from attestd.store import credentials
from tests.attestd.oauth.agents import (
    GONE,
    TOKEN_URL,
    Agent,
    In,
    accepted,
    attested,
    by_assertion,
    compact,
    new_agent,
    prepared,
    public,
    refused,
    request,
    seconds,
    thumbprint,
)
from tests.attestd.oauth.conftest import MakeAgent
from tests.attester import Machine, jwk_of, new_key
from tests.deployment import SERVER, Deployment, credential


@pytest.fixture
def agent(agent_of: MakeAgent) -> Agent:
    return agent_of("private_key_jwt")


def test_an_assertion_of_another_library_authenticates(agent: Agent) -> None:
    claims = {
        "iss": agent.client_id,
        "sub": agent.client_id,
        "aud": [SERVER],
        "jti": "x",
        "exp": seconds() + 60,
    }
    for headers in ({}, {"typ": None}, {"kid": "whatever it calls its key"}, {"kid": thumbprint(agent.key)}):
        token = jwt.encode(claims, agent.key, algorithm="ES256", headers=headers)
        assert accepted(agent, by_assertion(agent, token)).method == "private_key_jwt"


OK: list[dict[str, Any]] = [
    {},
    {"aud": [SERVER]},
    {"iat": GONE},
    {"nbf": 1},
    {"exp": In(115)},
    {"jti": "a" * 256},
    {"unknown": {"claim": [1, None]}},
]
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("aud_of_another_server", {"aud": "https://other.example.org"}, "aud"),
    ("aud_token_endpoint", {"aud": TOKEN_URL}, "aud"),
    ("aud_with_slash", {"aud": f"{SERVER}/"}, "aud"),
    ("aud_list_ours_first", {"aud": [SERVER, "https://other.example.org"]}, "aud"),
    ("aud_list_ours_last", {"aud": ["https://other.example.org", SERVER]}, "aud"),
    ("aud_empty_list", {"aud": []}, "aud"),
    ("aud_missing", {"aud": GONE}, "aud"),
    ("aud_null", {"aud": None}, "aud"),
    ("aud_number", {"aud": 7}, "aud"),
    ("sub_not_iss", {"sub": "spiffe://example.org/agent/keeper/x"}, "sub"),
    ("sub_number", {"sub": 7}, "claim"),
    ("sub_missing", {"sub": GONE}, "claim"),
    ("iss_missing", {"iss": GONE}, "claim"),
    ("iss_null", {"iss": None, "sub": None}, "claim"),
    ("exp_missing", {"exp": GONE}, "claim"),
    ("exp_null", {"exp": None}, "claim"),
    ("exp_text", {"exp": str(seconds() + 60)}, "claim"),
    ("exp_past", {"exp": In(-1)}, "expired"),
    ("exp_in_ten_years", {"exp": In(315_360_000)}, "lifetime"),
    ("exp_in_three_minutes", {"exp": In(180)}, "lifetime"),
    ("nbf_ahead", {"nbf": In(60)}, "not_yet"),
    ("iat_ahead", {"iat": In(60)}, "not_yet"),
    ("iat_text", {"iat": "now"}, "claim"),
    ("jti_missing", {"jti": GONE}, "claim"),
    ("jti_number", {"jti": 1}, "claim"),
    ("jti_long", {"jti": "a" * 257}, "claim"),
]


@pytest.mark.parametrize("claims", OK)
def test_a_healthy_assertion_authenticates(claims: dict[str, Any], agent: Agent) -> None:
    client = accepted(agent, by_assertion(agent, agent.assertion(**claims)))
    assert client.confirmation.value == thumbprint(agent.key)


@pytest.mark.parametrize(("claims", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_oa_8_an_assertion_that_says_something_else_is_refused(
    claims: dict[str, Any], reason: str, agent: Agent
) -> None:
    error = refused(
        agent, by_assertion(agent, agent.assertion(**claims)), "invalid_client", f"assertion_{reason}"
    )
    assert error.status == 401


HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("none", {"alg": "none"}, "alg"),
    ("hs256", {"alg": "HS256"}, "alg"),
    ("another_of_the_list", {"alg": "ES384"}, "bad_signature"),
    ("access_token", {"typ": "at+jwt"}, "typ"),
    ("embedded_key", {"jwk": public(new_key("p256"))}, "header_key"),
    ("jku", {"jku": "http://127.0.0.1:1/"}, "header_key"),
    ("x5u", {"x5u": "http://127.0.0.1:1/"}, "header_key"),
    ("crit", {"crit": ["exp"]}, "header_unknown"),
]


@pytest.mark.parametrize(("header", "reason"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_mt_7_an_assertion_with_a_doubtful_header_is_refused(
    header: dict[str, Any], reason: str, agent: Agent
) -> None:
    refused(
        agent, by_assertion(agent, agent.assertion(header=header)), "invalid_client", f"assertion_{reason}"
    )


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "", "a" * 4000])
def test_mt_7_a_kid_is_a_name_and_nothing_else(kid: str, agent: Agent) -> None:
    accepted(agent, by_assertion(agent, agent.assertion(header={"kid": kid})))
    stranger = replace(agent, key=new_key("p256"))
    token = stranger.assertion(header={"kid": kid})
    refused(agent, by_assertion(agent, token), "invalid_client", "assertion_bad_signature")


def test_an_unknown_client_and_a_bad_signature_have_one_answer(agent: Agent) -> None:
    """What nobody proved teaches nobody which clients there are."""
    stranger = replace(agent, key=new_key("p256"))
    known = refused(agent, by_assertion(stranger), "invalid_client", "assertion_bad_signature")
    unknown_agent = replace(agent, name="nobody")
    unknown = refused(agent, by_assertion(unknown_agent), "invalid_client", "assertion_bad_signature")
    nothing = refused(agent, request(), "invalid_client", "client_missing")
    ended = refused(agent, by_assertion(agent, agent.assertion(aud="b")), "invalid_client", "assertion_aud")
    assert known.body() == unknown.body() == nothing.body() == ended.body()
    assert known.status == unknown.status == 401
    assert known.client_id is None


def test_the_name_of_a_key_of_ours_or_of_another_client_helps_nobody(
    agent: Agent, agent_of: MakeAgent
) -> None:
    other = agent_of("attest_jwt_client_auth")
    token = replace(agent, key=other.key, name="keeper").assertion()
    refused(agent, by_assertion(agent, token), "invalid_client", "assertion_bad_signature")


def test_a_key_of_any_live_credential_of_the_client_counts_and_its_wit_is_taken_first(
    shared_deployment: Deployment, shared_machine: Machine
) -> None:
    key = new_key("p256")
    for form in ("wit-svid", "x509-svid"):
        text = attested(shared_deployment, shared_machine, credential(form, "planner", key=jwk_of(key)))
    made = Agent(shared_deployment, shared_machine, "planner", key, text)
    assert accepted(made, by_assertion(made)).credential.format == "wit-svid"
    lone = new_agent(shared_deployment, shared_machine, "x509-svid")
    assert accepted(lone, by_assertion(lone)).credential.format == "x509-svid"


@pytest.mark.parametrize("forms", [("wit-svid", "wit-svid"), ("x509-svid", "client-attestation")])
def test_of_several_credentials_for_one_key_the_one_that_ends_last_is_taken(
    forms: tuple[str, str], shared_deployment: Deployment, shared_machine: Machine
) -> None:
    key = new_key("p256")
    wanted = [credential(form, "planner", key=jwk_of(key)) for form in forms]
    shared_deployment.attest(shared_machine, credentials=wanted)
    made = Agent(shared_deployment, shared_machine, "planner", key, "")
    store = shared_deployment.service.store
    bound = store.read(lambda tx: credentials.list_bound(tx, made.client_id, now_ms()))
    for issued in [each for each in bound if each.key_thumbprint == thumbprint(key)]:
        lengthen(made, issued.credential_id, 1000)
        assert accepted(made, by_assertion(made)).credential.credential_id == issued.credential_id
        lengthen(made, issued.credential_id, -1000)


def lengthen(agent: Agent, credential_id: str, ms: int) -> None:
    agent.deployment.service.store.write(
        lambda tx: tx.execute(
            "UPDATE credentials SET expires_at = expires_at + ? WHERE credential_id = ?", (ms, credential_id)
        )
    )


def test_only_so_many_keys_are_tried_but_one_named_by_its_thumbprint_is_found(deployment: Deployment) -> None:
    machine = prepared(deployment)
    first = new_agent(deployment, machine, "wit-svid")
    accepted(first, by_assertion(first))
    wanted = [credential("wit-svid", "planner", key=jwk_of(new_key("p256"))) for _ in range(16)]
    deployment.attest(machine, credentials=wanted)
    deployment.service.store.write(
        lambda tx: tx.execute(
            "UPDATE credentials SET expires_at = expires_at + 1000 WHERE key_thumbprint <> ?",
            (thumbprint(first.key),),
        )
    )
    refused(first, by_assertion(first), "invalid_client", "assertion_bad_signature")
    named = first.assertion(header={"kid": thumbprint(first.key)})
    accepted(first, by_assertion(first, named))


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_a_key_in_the_tpm_authenticates_as_resident(
    kind: str, shared_deployment: Deployment, shared_machine: Machine
) -> None:
    keeper = new_agent(shared_deployment, shared_machine, "wit-svid", name="keeper", kind=kind)
    client = accepted(keeper, by_assertion(keeper))
    assert (client.resident, client.grant.key) == (True, "tpm")


def test_a_credential_that_was_ended_opens_nothing(
    shared_deployment: Deployment, shared_machine: Machine
) -> None:
    agent = new_agent(shared_deployment, shared_machine, "wit-svid")
    client = accepted(agent, by_assertion(agent))
    store = shared_deployment.service.store
    later = client.credential.expires_at
    token = agent.assertion(exp=later // 1000 + 60, iat=GONE)
    refused(agent, by_assertion(agent, token, now=later), "invalid_client", "assertion_bad_signature")
    store.write(
        lambda tx: tx.execute(
            "UPDATE credentials SET revoked_at = ? WHERE credential_id = ?",
            (now_ms(), client.credential.credential_id),
        )
    )
    found = store.read(lambda tx: credentials.get(tx, client.credential.credential_id))
    assert found is not None
    assert found.revoked_at is not None
    refused(agent, by_assertion(agent), "invalid_client", "assertion_bad_signature")


def test_a_token_signed_with_the_services_own_key_is_no_assertion(agent: Agent) -> None:
    ours = agent.deployment.service.keyring.at(now_ms()).signer("wit")
    forged = compact(ours.private_key, {"alg": "ES256", "kid": ours.kid}, _claims(agent))
    refused(agent, by_assertion(agent, forged), "invalid_client", "assertion_bad_signature")
    honest = compact(agent.key, {"alg": "ES256", "kid": ours.kid}, _claims(agent))
    accepted(agent, by_assertion(agent, honest))


def _claims(agent: Agent) -> dict[str, Any]:
    return {"iss": agent.client_id, "sub": agent.client_id, "aud": SERVER, "jti": "1", "exp": seconds() + 60}
