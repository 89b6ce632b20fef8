"""JWT-SVIDs: ours, for us alone, and only where the policy lets bearer tokens authenticate."""

from dataclasses import replace
from typing import Any

import pytest

from attestd.clock import now_ms
from tests.attestd.oauth.agents import (
    GONE,
    TOKEN_URL,
    Agent,
    In,
    accepted,
    attested,
    by_jwt_svid,
    changed,
    compact,
    new_agent,
    refused,
    seconds,
)
from tests.attestd.oauth.conftest import MakeAgent
from tests.attester import new_key
from tests.deployment import SERVER, credential


@pytest.fixture
def agent(agent_of: MakeAgent) -> Agent:
    return agent_of("spiffe_jwt")


def svid_by(agent: Agent, use: str = "jwt", *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    ours = agent.deployment.service.keyring.at(now_ms()).signer(use)
    members = {
        "iss": SERVER,
        "sub": agent.client_id,
        "aud": [SERVER],
        "iat": seconds(),
        "exp": seconds() + 300,
        "jti": accepted(agent, by_jwt_svid(agent)).credential.credential_id,
    }
    shown = {"alg": ours.alg, "kid": ours.kid, "typ": "JWT"}
    return compact(ours.private_key, changed(shown, header or {}), changed(members, claims))


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("aud_another", {"aud": ["https://other.example.org"]}, "jwt_svid_aud"),
    ("aud_token_endpoint", {"aud": TOKEN_URL}, "jwt_svid_aud"),
    ("aud_two", {"aud": [SERVER, "https://other.example.org"]}, "jwt_svid_aud"),
    ("aud_ours_last", {"aud": ["https://other.example.org", SERVER]}, "jwt_svid_aud"),
    ("aud_missing", {"aud": GONE}, "jwt_svid_aud"),
    ("iss_another", {"iss": "https://other.example.org"}, "jwt_svid_iss"),
    ("iss_prefix", {"iss": SERVER[:-1]}, "jwt_svid_iss"),
    ("iss_missing", {"iss": GONE}, "jwt_svid_claim"),
    ("sub_number", {"sub": 7}, "jwt_svid_claim"),
    ("sub_another_agent", {"sub": "spiffe://example.org/agent/clerk/x"}, "credential_unknown"),
    ("exp_missing", {"exp": GONE}, "jwt_svid_claim"),
    ("exp_past", {"exp": 1}, "jwt_svid_expired"),
    ("nbf_ahead", {"nbf": In(600)}, "jwt_svid_not_yet"),
    ("jti_missing", {"jti": GONE}, "jwt_svid_claim"),
    ("jti_unknown", {"jti": "never issued"}, "credential_unknown"),
]


@pytest.mark.parametrize(("claims", "cause"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_mt_8_a_jwt_svid_that_says_something_else_is_refused(
    claims: dict[str, Any], cause: str, agent: Agent
) -> None:
    refused(agent, by_jwt_svid(agent, svid_by(agent, **claims)), "invalid_client", cause, status=401)
    accepted(agent, by_jwt_svid(agent, svid_by(agent)))


HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("typ_access_token", {"typ": "at+jwt"}, "typ"),
    ("typ_wit", {"typ": "wit+jwt"}, "typ"),
    ("more_in_the_header", {"cty": "JWT"}, "header_unknown"),
    ("kid_missing", {"kid": GONE}, "kid_unknown"),
    ("kid_path", {"kid": "../../keys/jwt"}, "kid_unknown"),
    ("alg_none", {"alg": "none"}, "alg"),
    ("alg_another", {"alg": "RS256"}, "alg"),
    ("jku", {"jku": "http://127.0.0.1:1/"}, "header_key"),
]


@pytest.mark.parametrize(("header", "reason"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_mt_7_a_jwt_svid_with_another_header_is_refused(
    header: dict[str, Any], reason: str, agent: Agent
) -> None:
    refused(agent, by_jwt_svid(agent, svid_by(agent, header=header)), "invalid_client", f"jwt_svid_{reason}")


@pytest.mark.parametrize("typ", ["JWT", "JOSE", GONE])
def test_every_typ_that_the_standard_allows_is_read(typ: Any, agent: Agent) -> None:
    accepted(agent, by_jwt_svid(agent, svid_by(agent, header={"typ": typ})))


def test_a_jwt_svid_by_a_key_of_another_use_or_of_nobody_is_refused(agent: Agent) -> None:
    for use in ("wit", "ear", "x509"):
        refused(agent, by_jwt_svid(agent, svid_by(agent, use)), "invalid_client", "jwt_svid_kid_unknown")
    kid = agent.deployment.service.keyring.at(now_ms()).signer("jwt").kid
    forged = compact(new_key("p256"), {"alg": "ES256", "kid": kid}, {"sub": agent.client_id})
    refused(agent, by_jwt_svid(agent, forged), "invalid_client", "jwt_svid_bad_signature")


def test_without_bearer_in_its_grant_a_jwt_svid_authenticates_nobody(agent: Agent) -> None:
    clerk = new_agent(agent.deployment, agent.machine, "jwt-svid", name="clerk")
    error = refused(agent, by_jwt_svid(clerk), "invalid_client", "not_bearer", status=401)
    assert (error.client_id, error.device_id) == (clerk.client_id, clerk.machine.device_id)
    assert accepted(agent, by_jwt_svid(agent)).grant.bearer is True


def test_a_jwt_svid_that_was_issued_for_somebody_else_too_is_refused(agent: Agent) -> None:
    both = credential("jwt-svid", "courier", audience=[SERVER, "https://other.example.org"])
    text = attested(agent.deployment, agent.machine, both)
    refused(agent, by_jwt_svid(replace(agent, text=text)), "invalid_client", "jwt_svid_aud")


def test_a_jwt_svid_may_be_shown_again_for_it_proves_no_key(agent: Agent) -> None:
    assert accepted(agent, by_jwt_svid(agent)).spends == accepted(agent, by_jwt_svid(agent)).spends == ()
