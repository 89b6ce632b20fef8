"""Workload identity token and proof: is the token ours, and the proof its key's for this very request?"""

from dataclasses import replace
from typing import Any

import pytest

from attestd.clock import now_ms
from attestd.issue.jwk import from_public_key
from attestd.oauth.client import wit
from attestd.oauth.errors import TokenError
from tests.attestd.oauth.agents import (
    GONE,
    TOKEN_URL,
    Agent,
    In,
    accepted,
    by_wit,
    changed,
    compact,
    digest,
    new_agent,
    public,
    refused,
    request,
    seconds,
    thumbprint,
)
from tests.attestd.oauth.conftest import MakeAgent
from tests.attester import jwk_of, new_key


@pytest.fixture
def agent(agent_of: MakeAgent) -> Agent:
    return agent_of("workload_identity_token")


def wit_by(agent: Agent, use: str = "wit", *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A WIT with these members, signed by the service's own key of this use: only they can be wrong."""
    ours = agent.deployment.service.keyring.at(now_ms()).signer(use)
    members = {
        "iss": "spiffe://example.org",
        "sub": agent.client_id,
        "iat": seconds(),
        "exp": seconds() + 300,
        "jti": credential_id(agent),
        "cnf": {"jwk": jwk_of(agent.key)},
    }
    shown = {"alg": "ES256", "kid": ours.kid, "typ": "wit+jwt"}
    return compact(ours.private_key, changed(shown, header or {}), changed(members, claims))


def credential_id(agent: Agent) -> str:
    return accepted(agent, by_wit(agent)).credential.credential_id


WITS: list[tuple[str, dict[str, Any], str]] = [
    ("iss_another_domain", {"iss": "spiffe://example.com"}, "wit_iss"),
    ("iss_longer", {"iss": "spiffe://example.org.evil.example"}, "wit_iss"),
    ("iss_missing", {"iss": GONE}, "wit_claim"),
    ("aud_ours", {"aud": "http://127.0.0.1:8440"}, "wit_aud"),
    ("aud_null", {"aud": None}, "wit_aud"),
    ("exp_missing", {"exp": GONE}, "wit_claim"),
    ("exp_past", {"exp": 1}, "wit_expired"),
    ("nbf_ahead", {"nbf": In(600)}, "wit_not_yet"),
    ("sub_number", {"sub": 7}, "wit_claim"),
    ("sub_missing", {"sub": GONE}, "wit_claim"),
    ("sub_of_another_agent", {"sub": "spiffe://example.org/agent/keeper/x"}, "credential_unknown"),
    ("jti_missing", {"jti": GONE}, "wit_claim"),
    ("jti_unknown", {"jti": "never issued"}, "credential_unknown"),
    ("cnf_missing", {"cnf": GONE}, "wit_cnf"),
    ("cnf_without_jwk", {"cnf": {"jkt": "a"}}, "wit_cnf"),
    ("cnf_two_keys", {"cnf": {"jwk": jwk_of(new_key("p256")), "kid": "a"}}, "wit_cnf"),
    ("cnf_symmetric", {"cnf": {"jwk": {"kty": "oct", "k": "AAAA", "alg": "HS256"}}}, "wit_cnf"),
    ("cnf_none", {"cnf": {"jwk": {**public(new_key("p256")), "alg": "none"}}}, "wit_cnf"),
]


@pytest.mark.parametrize(("claims", "cause"), [row[1:] for row in WITS], ids=[row[0] for row in WITS])
def test_mt_8_a_wit_that_says_something_else_is_refused_with_400(
    claims: dict[str, Any], cause: str, agent: Agent
) -> None:
    token = wit_by(agent, **claims)
    refused(agent, by_wit(replace(agent, text=token)), "invalid_client", cause, status=400)
    accepted(agent, by_wit(replace(agent, text=wit_by(agent))))


def test_a_wit_by_a_key_of_another_use_or_of_nobody_is_refused(agent: Agent) -> None:
    for use in ("jwt", "ear", "x509", "audit"):
        other = replace(agent, text=wit_by(agent, use))
        refused(agent, by_wit(other), "invalid_client", "wit_kid_unknown", status=400)
    wit_key = agent.deployment.service.keyring.at(now_ms()).signer("wit").kid
    for kid, cause in ((GONE, "wit_kid_unknown"), (None, "wit_header_malformed")):
        other = replace(agent, text=wit_by(agent, header={"kid": kid}))
        refused(agent, by_wit(other), "invalid_client", cause, status=400)
    forged = compact(agent.key, {"alg": "ES256", "kid": wit_key, "typ": "wit+jwt"}, {"sub": agent.client_id})
    refused(agent, by_wit(replace(agent, text=forged)), "invalid_client", "wit_bad_signature", status=400)


def test_a_wit_for_a_key_that_was_not_issued_for_is_refused(agent: Agent) -> None:
    """As after a break-in into the signing key alone: the store says which key the credential is bound to."""
    thief = replace(agent, key=new_key("p256"))
    stolen = replace(thief, text=wit_by(agent, cnf={"jwk": jwk_of(thief.key)}))
    refused(agent, by_wit(stolen), "invalid_client", "credential_unknown", status=400)


PROOFS: list[tuple[str, dict[str, Any], str]] = [
    ("aud_another_endpoint", {"aud": TOKEN_URL.replace("token", "introspect")}, "aud"),
    ("aud_issuer", {"aud": "http://127.0.0.1:8440"}, "aud"),
    ("aud_case_of_path", {"aud": TOKEN_URL.replace("token", "Token")}, "aud"),
    ("aud_other_host", {"aud": "http://evil.example/oauth/token"}, "aud"),
    ("aud_two", {"aud": [TOKEN_URL, "http://evil.example/"]}, "aud"),
    ("aud_missing", {"aud": GONE}, "aud"),
    ("aud_no_uri", {"aud": "token endpoint"}, "uri"),
    ("exp_missing", {"exp": GONE}, "claim"),
    ("exp_past", {"exp": In(-1)}, "expired"),
    ("exp_far", {"exp": In(360)}, "lifetime"),
    ("exp_true", {"exp": True}, "claim"),
    ("jti_missing", {"jti": GONE}, "claim"),
    ("jti_long", {"jti": "a" * 257}, "claim"),
    ("wth_missing", {"wth": GONE}, "claim"),
    ("wth_of_another", {"wth": digest("another token")}, "wth"),
    ("wth_not_ascii", {"wth": "é"}, "wth"),
    ("ath_without_token", {"ath": digest("a")}, "ath"),
    ("tth_without_token", {"tth": digest("a")}, "tth"),
    ("oth_absent_header", {"oth": {"dpop": digest("a")}}, "oth"),
    ("oth_unknown_header", {"oth": {"x-identity": digest("somebody")}}, "oth"),
    ("oth_no_object", {"oth": ["dpop"]}, "oth"),
    ("oth_null", {"oth": None}, "oth"),
]


@pytest.mark.parametrize(("claims", "reason"), [row[1:] for row in PROOFS], ids=[row[0] for row in PROOFS])
def test_a_proof_that_says_something_else_is_refused_with_400(
    claims: dict[str, Any], reason: str, agent: Agent
) -> None:
    asked = by_wit(agent, agent.wpt(**claims), headers={"X-Identity": "somebody"})
    refused(agent, asked, "invalid_client", f"wpt_{reason}", status=400)
    accepted(agent, by_wit(agent, headers={"X-Identity": "somebody"}))


HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("typ", {"typ": "JWT"}, "typ"),
    ("typ_missing", {"typ": GONE}, "typ"),
    ("alg_of_another_key", {"alg": "ES384"}, "alg"),
    ("alg_none", {"alg": "none"}, "alg"),
    ("embedded_key", {"jwk": public(new_key("p256"))}, "header_key"),
]


@pytest.mark.parametrize(("header", "reason"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_proof_with_another_header_is_refused(header: dict[str, Any], reason: str, agent: Agent) -> None:
    refused(agent, by_wit(agent, agent.wpt(header=header)), "invalid_client", f"wpt_{reason}", status=400)


def test_a_proof_by_another_key_is_refused(agent: Agent) -> None:
    thief = replace(agent, key=new_key("p256"))
    refused(agent, by_wit(agent, thief.wpt()), "invalid_client", "wpt_bad_signature", status=400)


@pytest.mark.parametrize(
    "aud", [TOKEN_URL + "?a=b", TOKEN_URL + "#f", TOKEN_URL.replace("http:", "HTTP:"), [TOKEN_URL]]
)
def test_the_audience_is_compared_as_a_url_without_query_and_fragment(aud: Any, agent: Agent) -> None:
    accepted(agent, by_wit(agent, agent.wpt(aud=aud)))


@pytest.mark.parametrize("name", ["Host", "X-Forwarded-Host", "Forwarded"])
def test_no_header_moves_the_audience(name: str, agent: Agent) -> None:
    bad = agent.wpt(aud="http://evil.example/oauth/token")
    refused(agent, by_wit(agent, bad, headers={name: "evil.example"}), "invalid_client", "wpt_aud")
    accepted(agent, by_wit(agent, headers={name: "evil.example"}))


@pytest.mark.parametrize("name", ["Workload-Identity-Token", "Workload-Proof-Token"])
@pytest.mark.parametrize("value", ["{0},{0}", "{0}, {0}", "", " "])
def test_each_header_comes_exactly_once(name: str, value: str, agent: Agent) -> None:
    healthy = by_wit(agent)
    headers = {**healthy.headers, name.lower(): value.format(healthy.headers[name.lower()])}
    refused(agent, replace(healthy, headers=headers), "invalid_request", "header_twice", status=400)


def test_one_header_without_the_other_is_no_authentication(agent: Agent) -> None:
    bare = request(headers={"Workload-Identity-Token": agent.text})
    refused(agent, bare, "invalid_client", "wpt_not_compact", status=400)
    refused(
        agent,
        request(headers={"Workload-Proof-Token": agent.wpt()}),
        "invalid_client",
        "wit_not_compact",
        status=400,
    )
    bearer = request(headers={"Authorization": f"Bearer {agent.text}"})
    refused(agent, bearer, "invalid_client", "client_secret", status=401)


# --- tokens beside the WIT ---------------------------------------------------------------------------------


def test_a_transaction_token_beside_it_must_be_covered(agent: Agent) -> None:
    beside = {"Txn-Token": "the.txn.token"}
    refused(agent, by_wit(agent, headers=beside), "invalid_client", "wpt_tth")
    refused(
        agent, by_wit(agent, agent.wpt(tth=digest("another")), headers=beside), "invalid_client", "wpt_tth"
    )
    accepted(agent, by_wit(agent, agent.wpt(tth=digest("the.txn.token")), headers=beside))


def test_a_dpop_proof_beside_it_may_be_covered_and_then_must_be_that_one(agent: Agent) -> None:
    proof = agent.dpop()
    accepted(agent, by_wit(agent, agent.wpt(oth={"dpop": digest(proof)}), headers={"DPoP": f" {proof}"}))
    accepted(agent, by_wit(agent, headers={"DPoP": agent.dpop()}))
    wrong = agent.wpt(oth={"dpop": digest(proof + "a")})
    refused(agent, by_wit(agent, wrong, headers={"DPoP": proof}), "invalid_client", "wpt_oth")
    upper = agent.wpt(oth={"DPoP": digest(proof)})
    refused(agent, by_wit(agent, upper, headers={"DPoP": proof}), "invalid_client", "wpt_oth")
    number = agent.wpt(oth={"dpop": 7})
    refused(agent, by_wit(agent, number, headers={"DPoP": proof}), "invalid_client", "wpt_oth")


def test_at_other_endpoints_an_access_token_and_an_attestation_must_be_covered(agent: Agent) -> None:
    """The token endpoint takes neither beside a WIT, so this is asked of the verification itself."""
    key = from_public_key(agent.key.public_key(), alg="ES256")

    def fault(proof: str, **beside: str) -> str | None:
        headers = {name.replace("_", "-"): value for name, value in beside.items()}
        asked = by_wit(agent, proof, headers=headers)
        try:
            wit.verify_proof(asked, wit=agent.text, key=key)
        except TokenError as error:
            return error.reason
        return None

    assert fault(agent.wpt(), authorization="DPoP a.b.c") == "ath"
    assert fault(agent.wpt(ath=digest("DPoP a.b.c")), authorization="DPoP a.b.c") == "ath"
    assert fault(agent.wpt(ath=digest("a.b.c")), authorization="DPoP a.b.c") is None
    assert fault(agent.wpt(), oauth_client_attestation="a.b.c") == "oth"
    covered = agent.wpt(oth={"oauth-client-attestation": digest("a.b.c")})
    assert fault(covered, oauth_client_attestation="a.b.c") is None


def test_a_key_in_the_tpm_is_resident(agent: Agent) -> None:
    keeper = new_agent(agent.deployment, agent.machine, "wit-svid", name="keeper")
    client = accepted(keeper, by_wit(keeper))
    assert (client.resident, client.confirmation.value) == (True, thumbprint(keeper.key))
