"""Is an attested agent let in, and nobody else? A real issuer, real signatures, one lie at a time."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from attestd.resource import jwk
from attestd.resource.caller import Request
from attestd.resource.guard import Guard
from tests.attestd.resource.issuer import (
    AGENT,
    AUDIENCE,
    GONE,
    Agent,
    Issuer,
    compact,
    denied,
    digest,
    public,
    thumbprint,
)
from tests.attester import b64url, new_key


def chain_of(actors: int) -> dict[str, Any]:
    claim: dict[str, Any] = {"sub": AGENT}
    for _ in range(actors - 1):
        claim = {"sub": AGENT, "act": claim}
    return claim


def padded(key: Any) -> dict[str, str]:
    """The key with a leading zero byte in a coordinate: another spelling of it."""
    x = key.public_key().public_numbers().x
    return {**public(key), "x": b64url(x.to_bytes(33, "big"))}


def bearer(token: str, **members: Any) -> Request:
    return Request("GET", "/ledger", [("Authorization", f"Bearer {token}")], **members)


def test_a_caller_is_the_agent_with_its_scopes_and_what_it_rests_on(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    token = issuer.token(agent, scope="ledger.read ledger.write", jti="token-1")
    caller = guard.check(agent.request(token), "ledger.read")
    assert (caller.agent, caller.user, caller.actors) == (AGENT, None, ())
    assert caller.scopes == {"ledger.read", "ledger.write"}
    assert (caller.assurance, caller.policy, caller.attestation) == (
        "ek_verified",
        "edge-gateway@3",
        "attestation-1",
    )
    assert caller.token_id == "token-1"
    assert 0 < caller.expires_at - time.time() <= 300


def test_a_caller_says_on_whose_behalf_and_through_whom(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    other = "spiffe://example.org/agent/courier/gateway-8"
    login: Any = "https://login.example.org"
    token = issuer.token(
        agent,
        sub="alice",
        act={"sub": AGENT, "act": {"sub": other}},
        authorization_details=[{"type": "transfer", "limit": 5}],
        **{"urn:attestd:subject_issuer": login},
    )
    caller = guard.check(agent.request(token))
    assert (caller.user, caller.user_issuer, caller.actors) == ("alice", login, (AGENT, other))
    assert caller.authorization_details == ({"type": "transfer", "limit": 5},)


def test_a_user_who_is_named_like_the_agent_is_still_a_user(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    claims: dict[str, Any] = {"urn:attestd:subject_issuer": "https://login.example.org"}
    assert guard.check(agent.request(issuer.token(agent, **claims))).user == AGENT


# --- the token ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"exp": int(time.time()) - 1}, {}),
        ({"exp": GONE}, {}),
        ({"exp": True}, {}),
        ({"exp": 1e12}, {}),
        ({"exp": "9999999999"}, {}),
        ({"iat": int(time.time()) + 3600}, {}),
        ({"iat": GONE}, {}),
        ({"iat": True}, {}),
        ({"nbf": True}, {}),
        ({"nbf": int(time.time()) + 3600}, {}),
        ({"aud": "https://other.example.org"}, {}),
        ({"aud": [AUDIENCE + "/"]}, {}),
        ({"aud": [1, AUDIENCE]}, {}),
        ({"aud": GONE}, {}),
        ({"iss": "https://attestd.example.org"}, {}),
        ({"iss": GONE}, {}),
        ({"client_id": "planner"}, {}),
        ({"client_id": GONE}, {}),
        ({"sub": 7}, {}),
        ({"jti": GONE}, {}),
        ({"scope": ["ledger.read"]}, {}),
        ({"scope": "ledger.read  ledger.write"}, {}),
        ({"scope": 'ledger."read'}, {}),
        ({"cnf": {}}, {}),
        ({"cnf": {"jwk": {}}}, {}),
        ({"cnf": {"jkt": 7}}, {}),
        ({"act": {"sub": "spiffe://example.org/agent/other/gateway-7"}}, {}),
        ({"act": "planner"}, {}),
        ({"act": chain_of(17)}, {}),
        ({"urn:attestd:attestation": GONE}, {}),
        ({"urn:attestd:attestation": {"policy": "p@1"}}, {}),
        ({"authorization_details": {"type": "transfer"}}, {}),
        # Everything else that an issuer signs: JWT-SVID and ID token, attestation result, WIT, proof.
        ({}, {"typ": "JWT"}),
        ({}, {"typ": GONE}),
        ({}, {"typ": "eat+jwt"}),
        ({}, {"typ": "wit+jwt"}),
        ({}, {"typ": "dpop+jwt"}),
        ({}, {"alg": "none"}),
        ({}, {"alg": "HS256"}),
        ({}, {"alg": "ES384"}),
        ({}, {"kid": "k2"}),
        ({}, {"kid": GONE}),
        ({}, {"kid": ["k1"]}),
        ({}, {"crit": ["exp"]}),
        ({}, {"b64": False}),
        ({}, {"jku": "http://127.0.0.1:1/keys"}),
        ({}, {"x5u": "http://127.0.0.1:1/keys"}),
        ({}, {"jwk": {}}),
    ],
)
def test_mt_8_what_is_no_access_token_for_this_resource_is_refused(
    issuer: Issuer, agent: Agent, guard: Guard, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    denied(guard, agent.request(issuer.token(agent, header=header, **claims)), 401, "invalid_token")
    assert issuer.asked == []
    guard.check(agent.request(issuer.token(agent)))


def test_the_type_of_a_token_is_a_media_type(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    for typ in ("application/at+jwt", "AT+JWT"):
        guard.check(agent.request(issuer.token(agent, header={"typ": typ})))


def test_one_of_several_audiences_is_enough(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    guard.check(agent.request(issuer.token(agent, aud=["https://other.example.org", AUDIENCE])))


def test_a_token_by_another_key_or_changed_by_a_bit_is_refused(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    good = issuer.token(agent)
    head, claims, signature = good.split(".")
    for bad in (
        compact(new_key("p256"), {"typ": "at+jwt", "alg": "ES256", "kid": "k1"}, b"{}"),
        f"{head}.{claims}.{b64url(bytes(64))}",
        f"{head}.{claims}.{signature[:-4]}",
        f"{head}.{claims}",
        f"{good}.x",
        f"{head}.{claims}x.{signature}",
        "." * 30_000,
    ):
        denied(guard, agent.request(bad), 401, "invalid_token")
    guard.check(agent.request(good))


def test_a_token_has_one_spelling(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    good = issuer.token(agent)
    # 64 bytes leave four bits of the last character unused.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(good[-1]) | 1]
    denied(guard, agent.request(good[:-1] + last), 401, "invalid_token")
    denied(guard, agent.request(good + "=="), 401, "invalid_token")
    guard.check(agent.request(good))


def test_mt_7_an_oversized_token_is_refused(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    denied(guard, agent.request(issuer.token(agent, more="x" * 16 * 1024)), 401, "invalid_token")
    guard.check(agent.request(issuer.token(agent, more="x" * 8 * 1024)))


def test_a_binding_that_cannot_be_checked_is_none(issuer: Issuer, agent: Agent) -> None:
    relaxed = issuer.guard(bearer=True)
    jkt = thumbprint(agent.key)
    denied(relaxed, bearer(issuer.token(agent, cnf={})), 401, "invalid_token")
    both = {"jkt": jkt, "x5t#S256": digest("a certificate")}
    denied(relaxed, agent.request(issuer.token(agent, cnf=both)), 401, "invalid_token")
    relaxed.check(agent.request(issuer.token(agent, cnf={"jkt": jkt})))


@pytest.mark.parametrize("raw", [b'{"typ":"at+jwt","typ":"at+jwt","alg":"ES256","kid":"k1"}', b"[]", b"{"])
def test_mt_7_a_doubtful_header_is_refused(issuer: Issuer, agent: Agent, guard: Guard, raw: bytes) -> None:
    denied(guard, agent.request(compact(issuer.keys["k1"], raw, b"{}")), 401, "invalid_token")


# --- the proof ----------------------------------------------------------------------------------------------


def test_a_proof_is_good_for_one_request(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token = issuer.token(agent)
    request = agent.request(token)
    guard.check(request)
    denied(guard, request, 401, "invalid_dpop_proof")
    guard.check(agent.request(token))


def test_a_proof_that_many_threads_show_at_once_is_good_for_one(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    request, passed = agent.request(issuer.token(agent)), []
    ready = threading.Barrier(8)

    def call() -> None:
        ready.wait()
        try:
            passed.append(guard.check(request))
        except Exception:
            return

    threads = [threading.Thread(target=call) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(passed) == 1


Lie = Callable[[Agent, str], str]


@pytest.mark.parametrize(
    "lie",
    [
        lambda a, t: a.proof(t, htm="POST"),
        lambda a, t: a.proof(t, htm="get"),
        lambda a, t: a.proof(t, htm=GONE),
        lambda a, t: a.proof(t, htu=f"{AUDIENCE}/other"),
        lambda a, t: a.proof(t, htu=f"{AUDIENCE}/Ledger"),
        lambda a, t: a.proof(t, htu=f"{AUDIENCE}/ledger/"),
        lambda a, t: a.proof(t, htu="https://tools.example.org./ledger"),
        lambda a, t: a.proof(t, htu="http://tools.example.org/ledger"),
        lambda a, t: a.proof(t, htu="https://tools.example.org:8443/ledger"),
        lambda a, t: a.proof(t, htu="https://attacker.example.org/ledger"),
        lambda a, t: a.proof(t, htu="https://tools.example.org@attacker.example.org/ledger"),
        lambda a, t: a.proof(t, htu="https://[/ledger"),
        lambda a, t: a.proof(t, htu="/ledger"),
        lambda a, t: a.proof(t, htu=GONE),
        lambda a, t: a.proof(t, ath=digest("another token")),
        lambda a, t: a.proof(t, ath=GONE),
        lambda a, t: a.proof(t, iat=int(time.time()) - 3600),
        lambda a, t: a.proof(t, iat=int(time.time()) + 3600),
        lambda a, t: a.proof(t, iat=GONE),
        lambda a, t: a.proof(t, iat=True),
        lambda a, t: a.proof(t, jti=GONE),
        lambda a, t: a.proof(t, jti="x" * 10_240),
        lambda a, t: a.proof(t, jti=7),
        lambda a, t: a.proof(t, header={"typ": GONE}),
        lambda a, t: a.proof(t, header={"typ": "JWT"}),
        lambda a, t: a.proof(t, header={"alg": "none"}),
        lambda a, t: a.proof(t, header={"alg": "HS256"}),
        lambda a, t: a.proof(t, header={"alg": "ES384"}),
        lambda a, t: a.proof(t, header={"jwk": GONE}),
        lambda a, t: a.proof(t, header={"jwk": {**public(a.key), "d": "AA"}}),
        lambda a, t: a.proof(t, header={"jwk": {"kty": "oct", "k": "AA"}}),
        lambda a, t: a.proof(t, header={"jwk": public(new_key("p256"))}),
        lambda a, t: a.proof(t, header={"jwk": {**public(a.key), "alg": "ES384"}}),
        lambda a, t: a.proof(t, header={"jwk": padded(a.key)}),
        lambda a, t: a.proof(t, header={"jku": "http://127.0.0.1:1/"}),
        lambda a, t: a.proof(t, header={"crit": ["jti"]}),
        lambda a, t: t,
        lambda a, t: "x",
    ],
)
def test_oa_2_oa_3_a_proof_of_anything_else_is_refused(
    issuer: Issuer, agent: Agent, guard: Guard, lie: Lie
) -> None:
    token = issuer.token(agent)
    denied(guard, agent.request(token, lie(agent, token)), 401, "invalid_dpop_proof")
    assert issuer.asked == []
    guard.check(agent.request(token))


@pytest.mark.parametrize(
    "htu",
    [
        f"{AUDIENCE}/ledger?page=2#top",
        "HTTPS://Tools.Example.ORG:443/ledger",
        f"{AUDIENCE}/%6cedger",
        f"{AUDIENCE}/x/../ledger",
    ],
)
def test_the_same_url_in_another_spelling_is_the_same(
    issuer: Issuer, agent: Agent, guard: Guard, htu: str
) -> None:
    token = issuer.token(agent)
    guard.check(agent.request(token, agent.proof(token, htu=htu)))


def test_oa_2_no_header_moves_the_url_that_a_proof_is_compared_with(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    token = issuer.token(agent)
    elsewhere = "https://attacker.example.org/ledger"
    spoofs = [
        ("Host", "attacker.example.org"),
        ("X-Forwarded-Host", "attacker.example.org"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "host=attacker.example.org"),
    ]
    asked = agent.request(token, agent.proof(token, htu=elsewhere))
    denied(guard, replace(asked, headers=[*asked.headers, *spoofs]), 401, "invalid_dpop_proof")
    honest = agent.request(token)
    guard.check(replace(honest, headers=[*honest.headers, *spoofs]))


def test_the_url_may_be_another_than_the_audience(issuer: Issuer, agent: Agent) -> None:
    guard = issuer.guard(url="https://gateway.example.org/tools/")
    token = issuer.token(agent)
    denied(guard, agent.request(token), 401, "invalid_dpop_proof")
    guard.check(agent.request(token, agent.proof(token, htu="https://gateway.example.org/tools/ledger")))


def test_a_stolen_token_is_worth_nothing_without_its_key(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token, thief = issuer.token(agent), Agent()
    denied(guard, thief.request(token), 401, "invalid_token")
    denied(guard, bearer(token), 401, "invalid_token")
    no_proof = Request("GET", "/ledger", [("Authorization", f"DPoP {token}")])
    denied(guard, no_proof, 401, "invalid_dpop_proof")
    denied(issuer.guard(bearer=True), bearer(token), 401, "invalid_token")
    guard.check(agent.request(token))


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_keys_of_every_kind_that_a_tpm_has_prove(issuer: Issuer, guard: Guard, kind: str) -> None:
    agent = Agent(new_key(kind))
    guard.check(agent.request(issuer.token(agent)))


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (2048, 3)])
def test_oa_3_a_weak_key_proves_nothing(issuer: Issuer, guard: Guard, bits: int, exponent: int) -> None:
    weak = Agent(rsa.generate_private_key(exponent, bits))
    denied(guard, weak.request(issuer.token(weak)), 401, "invalid_dpop_proof")


def test_two_agents_may_choose_one_jti(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    for each in (agent, Agent()):
        token = issuer.token(each)
        guard.check(each.request(token, each.proof(token, jti="same")))


# --- the headers --------------------------------------------------------------------------------------------


def test_two_authorization_headers_are_refused(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token = issuer.token(agent)
    proof = agent.proof(token)
    dpop = ("Authorization", f"DPoP {token}")
    for first in (dpop, ("authorization", f"Bearer {token}"), ("Authorization", "Basic eA==")):
        request = Request("GET", "/ledger", [first, dpop, ("DPoP", proof)])
        denied(guard, request, 400, "invalid_request")
    joined = Request("GET", "/ledger", [("Authorization", f"DPoP {token},DPoP {token}"), ("DPoP", proof)])
    denied(guard, joined, 400, "invalid_request")
    guard.check(agent.request(token, proof))


def test_two_proofs_are_refused(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token = issuer.token(agent)
    one, other = agent.proof(token), agent.proof(token)
    twice = [("Authorization", f"DPoP {token}"), ("DPoP", one), ("dpop", other)]
    denied(guard, Request("GET", "/ledger", twice), 401, "invalid_dpop_proof")
    denied(guard, agent.request(token, f"{one},{other}"), 401, "invalid_dpop_proof")
    guard.check(agent.request(token, one))


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Negotiate x", "nonsense", ""])
def test_a_request_without_a_token_is_told_what_is_needed(guard: Guard, value: str) -> None:
    headers = [("Authorization", value)] if value else []
    refusal = denied(guard, Request("GET", "/ledger", headers), 401, "unauthenticated", "ledger.read")
    (told,) = [text for name, text in refusal.headers if name == "WWW-Authenticate"]
    assert told == (
        'DPoP scope="ledger.read", '
        'resource_metadata="https://tools.example.org/.well-known/oauth-protected-resource", '
        'algs="ES256 ES384 PS256"'
    )


@pytest.mark.parametrize("token", ["", "a b", 'x"y', "x\r\nSet-Cookie: a=b", "é"])
def test_what_is_no_token_at_all_is_refused_and_never_quoted(guard: Guard, token: str) -> None:
    request = Request("GET", "/ledger", [("Authorization", f"DPoP {token}")])
    refusal = denied(guard, request, 400, "invalid_request")
    assert not token or token not in f"{refusal.headers} {refusal.problem}"


def test_the_scheme_is_read_in_any_case(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token = issuer.token(agent)
    guard.check(Request("GET", "/ledger", [("AUTHORIZATION", f"dpop {token}"), ("dPOP", agent.proof(token))]))


# --- scopes, certificates, bearer ---------------------------------------------------------------------------


def test_a_scope_that_is_missing_is_403_and_is_named(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token = issuer.token(agent)
    refusal = denied(guard, agent.request(token), 403, "insufficient_scope", "ledger.read", "ledger.write")
    assert 'scope="ledger.read ledger.write"' in dict(refusal.headers)["WWW-Authenticate"]
    guard.check(agent.request(token), "ledger.read")
    denied(guard, agent.request(issuer.token(agent, scope=GONE)), 403, "insufficient_scope", "ledger.read")


def test_oa_5_a_token_is_bound_to_the_certificate_of_the_connection_and_to_no_header(
    issuer: Issuer, agent: Agent
) -> None:
    guard = issuer.guard(certificates=True)
    certificate = b"the DER of a certificate"
    token = issuer.token(agent, cnf={"x5t#S256": digest(certificate.decode())})
    assert guard.check(bearer(token, certificate=certificate)).agent == AGENT
    for other in (None, b"another"):
        denied(guard, bearer(token, certificate=other), 401, "invalid_token")
    for header in ("X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "Client-Cert"):
        headers = [("Authorization", f"Bearer {token}"), (header, certificate.decode())]
        denied(guard, Request("GET", "/ledger", headers), 401, "invalid_token")
    # The other scheme, and the other way of holding a token, do not help.
    denied(guard, replace(agent.request(token), certificate=certificate), 401, "invalid_token")
    bound_to_key = issuer.token(agent)
    denied(guard, bearer(bound_to_key, certificate=certificate), 401, "invalid_token")


def test_a_token_that_is_bound_to_nothing_is_let_in_only_where_the_resource_says_so(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    token = issuer.token(agent, cnf=GONE)
    denied(guard, bearer(token), 401, "invalid_token")
    denied(guard, agent.request(token), 401, "invalid_token")
    relaxed = issuer.guard(bearer=True)
    assert relaxed.check(bearer(token)).agent == AGENT
    denied(relaxed, agent.request(token), 401, "invalid_token")


# --- nonces, metadata ---------------------------------------------------------------------------------------


def test_oa_3_with_a_nonce_key_a_proof_needs_a_nonce_of_ours_that_is_fresh(
    issuer: Issuer, agent: Agent
) -> None:
    now = [time.time()]
    guard = issuer.guard(nonce_key=bytes(32), clock=lambda: now[0])
    token = issuer.token(agent)
    refusal = denied(guard, agent.request(token), 401, "use_dpop_nonce")
    nonce = dict(refusal.headers)["DPoP-Nonce"]
    guard.check(agent.request(token, agent.proof(token, nonce=nonce)))
    assert dict(guard.response_headers())["DPoP-Nonce"]
    foreign = dict(issuer.guard(nonce_key=b"x" * 32).response_headers())["DPoP-Nonce"]
    for bad in (foreign, nonce[:-1] + ("A" if nonce[-1] != "A" else "E"), 7, "", "é"):
        denied(guard, agent.request(token, agent.proof(token, nonce=bad)), 401, "use_dpop_nonce")
    now[0] += 301
    again = issuer.token(agent, exp=int(now[0]) + 60)
    stale = agent.proof(again, nonce=nonce, iat=int(now[0]))
    denied(guard, agent.request(again, stale), 401, "use_dpop_nonce")
    fresh = dict(guard.response_headers())["DPoP-Nonce"]
    guard.check(agent.request(again, agent.proof(again, nonce=fresh, iat=int(now[0]))))


def test_a_short_nonce_key_stops_the_start(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        issuer.guard(nonce_key=b"short")


def test_the_metadata_names_the_resource_its_issuer_and_what_it_takes(issuer: Issuer) -> None:
    guard = issuer.guard(audience="https://tools.example.org/mcp", scopes=("ledger.read",), name="Ledger")
    assert guard.metadata_path == "/.well-known/oauth-protected-resource/mcp"
    assert guard.metadata() == {
        "resource": "https://tools.example.org/mcp",
        "authorization_servers": [issuer.url],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "ES384", "PS256"],
        "dpop_bound_access_tokens_required": True,
        "scopes_supported": ["ledger.read"],
        "resource_name": "Ledger",
    }
    relaxed = issuer.guard(bearer=True, certificates=True).metadata()
    assert "dpop_bound_access_tokens_required" not in relaxed
    assert relaxed["tls_client_certificate_bound_access_tokens"] is True
    assert issuer.guard(audience="urn:example:tools", url="https://x.example.org").metadata_path is None


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "http://attestd.example.org"},
        {"issuer": "https://user@attestd.example.org"},
        {"issuer": "https://attestd.example.org?x"},
        {"issuer": "file:///etc/passwd"},
        {"issuer": "http://attestd.example.org", "reached_at": "http://127.0.0.1:1"},
        {"reached_at": "http://attestd.example.org"},
        {"url": "http://tools.example.org"},
        {"audience": "urn:example:tools"},
    ],
)
def test_oa_10_a_url_that_nobody_should_ask_or_trust_stops_the_start(
    issuer: Issuer, settings: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"https|query|URI"):
        issuer.guard(**settings)


def test_the_answer_to_a_denied_request_is_a_problem(guard: Guard) -> None:
    refusal = denied(guard, Request("GET", "/ledger", []), 401, "unauthenticated")
    status, headers, body = refusal.answer()
    assert status == 401
    assert dict(headers)["Content-Type"] == "application/problem+json"
    assert b'"code": "unauthenticated"' in body
    assert refusal.problem["type"] == "urn:attestd:problem:unauthenticated"


def test_thumbprints_of_the_test_and_of_the_guard_agree(agent: Agent) -> None:
    assert jwk.thumbprint(agent.key.public_key()) == thumbprint(agent.key)
