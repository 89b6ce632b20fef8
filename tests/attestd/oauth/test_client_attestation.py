"""Client attestations: by us, for this key, with a proof for a challenge of ours."""

from dataclasses import replace
from typing import Any

import pytest

from attestd.clock import now_ms
from attestd.oauth import challenge
from attestd.store import signing_keys
from tests.attestd.oauth.agents import (
    GONE,
    TOKEN_URL,
    Agent,
    In,
    accepted,
    by_attestation,
    by_attestation_and_dpop,
    changed,
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
from tests.attester import jwk_of, new_key
from tests.deployment import SERVER, Deployment


@pytest.fixture
def agent(agent_of: MakeAgent) -> Agent:
    return agent_of("attest_jwt_client_auth")


def attestation_by(
    agent: Agent, use: str = "jwt", *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """An attestation with these members, signed by the service's own key of this use."""
    ours = agent.deployment.service.keyring.at(now_ms()).signer(use)
    members = {
        "iss": SERVER,
        "sub": agent.client_id,
        "iat": seconds(),
        "exp": seconds() + 300,
        "jti": accepted(agent, by_attestation(agent)).credential.credential_id,
        "cnf": {"jwk": jwk_of(agent.key)},
    }
    shown = {"alg": ours.alg, "kid": ours.kid, "typ": "oauth-client-attestation+jwt"}
    return compact(ours.private_key, changed(shown, header or {}), changed(members, claims))


ATTESTATIONS: list[tuple[str, dict[str, Any], str]] = [
    ("iss_another", {"iss": "https://other.example.org"}, "attestation_iss"),
    ("iss_longer", {"iss": f"{SERVER}.evil.example"}, "attestation_iss"),
    ("iss_missing", {"iss": GONE}, "attestation_claim"),
    ("exp_missing", {"exp": GONE}, "attestation_claim"),
    ("exp_past", {"exp": 1}, "attestation_expired"),
    ("iat_ahead", {"iat": In(600)}, "attestation_not_yet"),
    ("sub_missing", {"sub": GONE}, "attestation_claim"),
    ("sub_number", {"sub": 7}, "attestation_claim"),
    ("sub_another_agent", {"sub": "spiffe://example.org/agent/keeper/x"}, "credential_unknown"),
    ("jti_missing", {"jti": GONE}, "attestation_claim"),
    ("jti_unknown", {"jti": "never issued"}, "credential_unknown"),
    ("cnf_missing", {"cnf": GONE}, "attestation_cnf"),
    ("cnf_private", {"cnf": {"jwk": {**jwk_of(new_key("p256")), "d": "AAAA"}}}, "attestation_cnf"),
]


@pytest.mark.parametrize(
    ("claims", "cause"), [row[1:] for row in ATTESTATIONS], ids=[row[0] for row in ATTESTATIONS]
)
def test_mt_8_an_attestation_that_says_something_else_is_refused(
    claims: dict[str, Any], cause: str, agent: Agent
) -> None:
    for ask in (by_attestation, by_attestation_and_dpop):
        other = replace(agent, text=attestation_by(agent, **claims))
        refused(agent, ask(other), "invalid_client", cause, status=401)
        accepted(agent, ask(replace(agent, text=attestation_by(agent))))


def test_an_attestation_by_a_key_of_another_use_or_of_nobody_is_refused(agent: Agent) -> None:
    for use in ("wit", "ear", "x509", "audit"):
        other = replace(agent, text=attestation_by(agent, use))
        refused(agent, by_attestation(other), "invalid_client", "attestation_kid_unknown")
    kid = agent.deployment.service.keyring.at(now_ms()).signer("jwt").kid
    header = {"alg": "ES256", "kid": kid, "typ": "oauth-client-attestation+jwt"}
    forged = compact(agent.key, header, {"sub": agent.client_id})
    refused(agent, by_attestation(replace(agent, text=forged)), "invalid_client", "attestation_bad_signature")


def test_an_attestation_for_a_key_that_it_was_not_issued_for_is_refused(agent: Agent) -> None:
    thief = replace(agent, key=new_key("p256"))
    stolen = replace(thief, text=attestation_by(agent, cnf={"jwk": jwk_of(thief.key)}))
    refused(agent, by_attestation(stolen), "invalid_client", "credential_unknown")
    refused(agent, by_attestation_and_dpop(stolen), "invalid_client", "credential_unknown")


# --- the proof as a token of its own -----------------------------------------------------------------------

POPS: list[tuple[str, dict[str, Any], str]] = [
    ("aud_another", {"aud": "https://other.example.org"}, "aud"),
    ("aud_token_endpoint", {"aud": TOKEN_URL}, "aud"),
    ("aud_two", {"aud": [SERVER, "https://other.example.org"]}, "aud"),
    ("aud_missing", {"aud": GONE}, "aud"),
    ("iss_another", {"iss": "spiffe://example.org/agent/keeper/x"}, "iss"),
    ("iss_number", {"iss": 7}, "claim"),
    ("jti_missing", {"jti": GONE}, "claim"),
    ("jti_long", {"jti": "a" * 257}, "claim"),
    ("iat_missing", {"iat": GONE}, "claim"),
    ("iat_hour_ago", {"iat": In(-3600)}, "iat"),
    ("iat_hour_ahead", {"iat": In(3600)}, "iat"),
    ("iat_text", {"iat": "now"}, "claim"),
    ("exp_past", {"exp": In(-1)}, "expired"),
    ("exp_null", {"exp": None}, "claim"),
    ("challenge_number", {"challenge": 7}, "claim"),
]


@pytest.mark.parametrize(("claims", "reason"), [row[1:] for row in POPS], ids=[row[0] for row in POPS])
def test_a_proof_that_says_something_else_is_refused(
    claims: dict[str, Any], reason: str, agent: Agent
) -> None:
    cause = f"attestation_pop_{reason}"
    refused(agent, by_attestation(agent, agent.pop(**claims)), "invalid_client", cause, status=401)


@pytest.mark.parametrize("claims", [{"aud": [SERVER]}, {"iss": GONE}, {"exp": In(600)}, {"nonce": "unknown"}])
def test_a_healthy_proof_counts(claims: dict[str, Any], agent: Agent) -> None:
    accepted(agent, by_attestation(agent, agent.pop(**claims)))
    accepted(agent, by_attestation(agent, agent.pop(iss=agent.client_id)))


HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("typ", {"typ": "JWT"}, "typ"),
    ("typ_of_the_attestation", {"typ": "oauth-client-attestation+jwt"}, "typ"),
    ("typ_missing", {"typ": GONE}, "typ"),
    ("alg_of_another_key", {"alg": "PS256"}, "alg"),
    ("embedded_key", {"jwk": public(new_key("p256"))}, "header_key"),
    ("crit", {"crit": ["challenge"]}, "header_unknown"),
]


@pytest.mark.parametrize(("header", "reason"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_proof_with_another_header_is_refused(header: dict[str, Any], reason: str, agent: Agent) -> None:
    asked = by_attestation(agent, agent.pop(header=header))
    refused(agent, asked, "invalid_client", f"attestation_pop_{reason}")


def test_a_proof_by_another_key_is_refused(agent: Agent) -> None:
    thief = replace(agent, key=new_key("p256"))
    refused(agent, by_attestation(agent, thief.pop()), "invalid_client", "attestation_pop_bad_signature")


# --- challenges -------------------------------------------------------------------------------------------


def bad_challenges(agent: Agent) -> dict[str, Any]:
    return {
        "challenge_missing": GONE,
        "nonce_expired": agent.challenge(now=now_ms() - challenge.LIFETIME_MS - 1),
        "nonce_ahead": agent.challenge(now=now_ms() + 20_000),
        "nonce_unknown": "c29tZWJvZHkgZWxzZSdzIG5vbmNlIGhlcmUgMTIzNDU2",
    }


@pytest.mark.parametrize("cause", ["challenge_missing", "nonce_expired", "nonce_ahead", "nonce_unknown"])
def test_a_proof_without_a_good_challenge_is_told_one_that_works(cause: str, agent: Agent) -> None:
    proof = agent.pop(challenge=bad_challenges(agent)[cause])
    error = refused(agent, by_attestation(agent, proof), "use_attestation_challenge", cause, status=400)
    fresh = error.headers["OAuth-Client-Attestation-Challenge"]
    accepted(agent, by_attestation(agent, agent.pop(challenge=fresh)))


@pytest.mark.parametrize("cause", ["nonce_missing", "nonce_expired"])
def test_the_combined_form_is_told_a_challenge_in_both_headers(cause: str, agent: Agent) -> None:
    nonce = GONE if cause == "nonce_missing" else bad_challenges(agent)[cause]
    asked = by_attestation_and_dpop(agent, agent.dpop(nonce=nonce))
    error = refused(agent, asked, "use_attestation_challenge", f"dpop_{cause}", status=400)
    fresh = error.headers["OAuth-Client-Attestation-Challenge"]
    assert error.headers["DPoP-Nonce"] == fresh
    accepted(agent, by_attestation_and_dpop(agent, agent.dpop(nonce=fresh)))


# --- the combined form ------------------------------------------------------------------------------------


def test_the_combined_proof_is_by_the_attested_key(agent: Agent) -> None:
    thief = replace(agent, key=new_key("p256"))
    asked = by_attestation_and_dpop(agent, thief.dpop())
    refused(agent, asked, "invalid_dpop_proof", "dpop_other_key", status=400)
    shown = agent.dpop(header={"jwk": public(thief.key)})
    refused(
        agent, by_attestation_and_dpop(agent, shown), "invalid_dpop_proof", "dpop_bad_signature", status=400
    )


def test_with_both_proofs_each_keeps_its_own_rules(agent: Agent) -> None:
    client = accepted(agent, by_attestation(agent, headers={"DPoP": agent.dpop()}))
    assert (client.method, client.proven_dpop, len(client.spends)) == ("attest_jwt_client_auth", True, 2)
    bad_pop = by_attestation(agent, agent.pop(aud="a"), headers={"DPoP": agent.dpop()})
    refused(agent, bad_pop, "invalid_client", "attestation_pop_aud")
    bad_dpop = by_attestation(agent, headers={"DPoP": agent.dpop(nonce=GONE)})
    refused(agent, bad_dpop, "use_dpop_nonce", "dpop_nonce_missing")


def test_an_attestation_without_a_proof_and_a_proof_without_an_attestation_are_nothing(agent: Agent) -> None:
    alone = request(headers={"OAuth-Client-Attestation": agent.text})
    refused(agent, alone, "invalid_client", "attestation_pop_missing", status=401)
    pop = request(headers={"OAuth-Client-Attestation-PoP": agent.pop()})
    refused(agent, pop, "invalid_client", "attestation_not_compact", status=401)


@pytest.mark.parametrize("name", ["OAuth-Client-Attestation", "OAuth-Client-Attestation-PoP"])
@pytest.mark.parametrize("value", ["{0},{0}", "{0}, {0}", "", " "])
def test_each_header_comes_exactly_once(name: str, value: str, agent: Agent) -> None:
    healthy = by_attestation(agent)
    headers = {**healthy.headers, name.lower(): value.format(healthy.headers[name.lower()])}
    refused(agent, replace(healthy, headers=headers), "invalid_request", "header_twice", status=400)


def test_a_key_in_the_tpm_is_resident_and_what_the_token_is_bound_to(agent: Agent) -> None:
    for kind in ("p256", "rsa"):
        keeper = new_agent(agent.deployment, agent.machine, "client-attestation", name="keeper", kind=kind)
        for ask in (by_attestation, by_attestation_and_dpop):
            client = accepted(keeper, ask(keeper))
            assert (client.resident, client.confirmation.value) == (True, thumbprint(keeper.key))


# --- MT-9: our own keys change -----------------------------------------------------------------------------


def test_mt_9_an_attestation_by_an_older_key_counts_while_the_key_is_published_and_not_after(
    deployment: Deployment,
) -> None:
    machine = prepared(deployment)
    agent = new_agent(deployment, machine, "client-attestation")
    old = deployment.service.keyring.at(now_ms()).signer("jwt").kid
    new = json_kid(deployment)
    deployment.operate("keys", "activate", new, "--now")
    later = now_ms() + 2000
    assert deployment.service.keyring.at(later).signer("jwt").kid == new
    accepted(agent, by_attestation(agent, now=later))
    # As an operator may when everything that it signed has ended.
    deployment.service.store.write(
        lambda tx: tx.execute("UPDATE signing_keys SET last_expiry = 0 WHERE kid = ?", (old,))
    )
    assert deployment.service.store.write(lambda tx: signing_keys.retire(tx, old, now_ms()))
    refused(agent, by_attestation(agent, now=later + 2000), "invalid_client", "attestation_kid_unknown")


def json_kid(deployment: Deployment) -> str:
    """Add a key for tokens; its name."""
    before = {row["kid"] for row in deployment.listed("keys", "list")}
    deployment.operate("keys", "add", "--use", "jwt")
    after = {row["kid"] for row in deployment.listed("keys", "list")}
    (added,) = after - before
    return str(added)
