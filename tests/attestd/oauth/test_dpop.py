"""Does a DPoP proof count for one request, one key, now and once?"""

import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestd.clock import now_ms
from attestd.issue.jwk import thumbprint as thumbprint_of
from attestd.nonce import Sealer
from attestd.oauth import challenge, dpop, replay, uri
from attestd.oauth.errors import OAuthError, TokenError
from tests.attestd.oauth.agents import GONE, TOKEN_URL, changed, compact, public, request, seconds, thumbprint
from tests.attester import jwk_of, new_key

KEY = new_key("p256")
SEALER = Sealer.derive([b"a secret of the tests"], label=b"challenge", epoch=1)


def proof(header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
    members = {
        "jti": secrets.token_urlsafe(16),
        "htm": "POST",
        "htu": TOKEN_URL,
        "iat": seconds(),
        "nonce": challenge.issue(SEALER, now=now_ms()),
    }
    shown = {"alg": "ES256", "typ": "dpop+jwt", "jwk": public(KEY)}
    return compact(key or KEY, changed(shown, header or {}), changed(members, claims))


def check(token: str, **wanted: Any) -> dpop.Proof:
    asked = request(headers={"DPoP": token})
    return dpop.check_proof(asked, challenges=SEALER, **wanted)


def refusal(token: str, **wanted: Any) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        check(token, **wanted)
    assert caught.value.status == 400
    return caught.value


# --- vectors of RFC 9449 ----------------------------------------------------------------------------------


def test_the_thumbprint_of_the_standards_example() -> None:
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    }
    expected = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
    assert dpop.read_header_key(jwk, "ES256").thumbprint == thumbprint_of(jwk) == expected


def test_the_token_hash_of_the_standards_example() -> None:
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    expected = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
    assert dpop.token_hash(token) == expected
    assert check(proof(ath=expected), access_token=token).jkt == thumbprint(KEY)


# --- healthy ----------------------------------------------------------------------------------------------


def test_a_proof_for_this_request_by_its_own_key_counts() -> None:
    found = check(proof(jti="once"), expected_jkt=thumbprint(KEY))
    assert (found.jkt, found.jti, found.key.jwk) == (thumbprint(KEY), "once", public(KEY))
    assert found.spend.until > now_ms() + dpop.WINDOW_SECONDS * 1000


@pytest.mark.parametrize("alg", ["ES256", "ES384", "PS256"])
def test_a_proof_of_another_library_counts(alg: str) -> None:
    curve: ec.EllipticCurve = ec.SECP384R1() if alg == "ES384" else ec.SECP256R1()
    key: Any = rsa.generate_private_key(65537, 2048) if alg == "PS256" else ec.generate_private_key(curve)
    algorithm = jwt.algorithms.RSAAlgorithm if alg == "PS256" else jwt.algorithms.ECAlgorithm
    jwk = json.loads(algorithm.to_jwk(key.public_key()))
    claims = {
        "jti": secrets.token_urlsafe(16),
        "htm": "POST",
        "htu": TOKEN_URL,
        "iat": seconds(),
        "nonce": challenge.issue(SEALER, now=now_ms()),
    }
    token = jwt.encode(claims, key, algorithm=alg, headers={"typ": "dpop+jwt", "jwk": jwk})
    assert check(token).key.alg == alg


def test_members_of_the_shown_key_that_say_no_more_of_it_do_not_matter() -> None:
    shown = {**public(KEY), "alg": "ES256", "use": "sig", "kid": "mine", "key_ops": ["verify"], "ext": True}
    assert check(proof({"jwk": shown})).jkt == thumbprint(KEY)


# --- OA-3: the proof itself --------------------------------------------------------------------------------

_RSA_1024 = rsa.generate_private_key(65537, 1024)
_RSA = jwk_of(new_key("rsa"))
_ROW = Callable[[], str]
BAD: list[tuple[str, _ROW, str]] = [
    ("private_member", lambda: proof({"jwk": {**public(KEY), "d": "AAAA"}}), "dpop_private_key"),
    ("private_rsa_member", lambda: proof({"jwk": {**public(KEY), "dp": "AAAA"}}), "dpop_private_key"),
    ("symmetric_key", lambda: proof({"jwk": {"kty": "oct", "k": "AAAA"}}), "dpop_private_key"),
    ("symmetric_without_key", lambda: proof({"jwk": {"kty": "oct"}}), "dpop_bad_key"),
    ("rsa_1024", lambda: proof({"alg": "PS256", "jwk": jwk_of(_RSA_1024)}, key=_RSA_1024), "dpop_weak_key"),
    ("rsa_exponent", lambda: proof({"alg": "PS256", "jwk": {**_RSA, "e": "Aw"}}), "dpop_weak_key"),
    ("off_curve", lambda: proof({"jwk": {**public(KEY), "y": public(KEY)["x"]}}), "dpop_bad_key"),
    ("other_curve", lambda: proof({"jwk": {**public(KEY), "crv": "secp256k1"}}), "dpop_bad_key"),
    ("key_no_text", lambda: proof({"jwk": {**public(KEY), "x": 7}}), "dpop_bad_key"),
    ("key_of_other_alg", lambda: proof({"jwk": {**public(KEY), "alg": "ES384"}}), "dpop_alg"),
    ("other_key_shown", lambda: proof({"jwk": public(new_key("p256"))}), "dpop_bad_signature"),
    ("alg_none", lambda: proof({"alg": "none"}), "dpop_alg"),
    ("alg_hs256", lambda: proof({"alg": "HS256"}), "dpop_alg"),
    ("alg_rs256", lambda: proof({"alg": "RS256", "jwk": _RSA}), "dpop_alg"),
    ("typ_missing", lambda: proof({"typ": GONE}), "dpop_typ"),
    ("typ_jwt", lambda: proof({"typ": "JWT"}), "dpop_typ"),
    ("jwk_missing", lambda: proof({"jwk": GONE}), "dpop_header_key"),
    ("jku_too", lambda: proof({"jku": "https://a.example/keys"}), "dpop_header_key"),
    ("jti_missing", lambda: proof(jti=GONE), "dpop_claim"),
    ("jti_empty", lambda: proof(jti=""), "dpop_claim"),
    ("jti_number", lambda: proof(jti=7), "dpop_claim"),
    ("jti_of_10_kb", lambda: proof(jti="a" * 10_000), "dpop_claim"),
    ("jti_of_257", lambda: proof(jti="a" * 257), "dpop_claim"),
    ("iat_missing", lambda: proof(iat=GONE), "dpop_claim"),
    ("iat_text", lambda: proof(iat=str(seconds())), "dpop_claim"),
    ("iat_true", lambda: proof(iat=True), "dpop_claim"),
    ("iat_hour_ago", lambda: proof(iat=seconds() - 3600), "dpop_iat"),
    ("iat_hour_ahead", lambda: proof(iat=seconds() + 3600), "dpop_iat"),
    ("iat_62_s_ago", lambda: proof(iat=seconds() - 62), "dpop_iat"),
    ("htm_missing", lambda: proof(htm=GONE), "dpop_claim"),
    ("htu_missing", lambda: proof(htu=GONE), "dpop_claim"),
    (
        "nonce_foreign",
        lambda: proof(nonce="c29tZWJvZHkgZWxzZSdzIG5vbmNlIGhlcmUgMTIzNDU2"),
        "dpop_nonce_unknown",
    ),
    ("nonce_of_other_epoch", lambda: proof(nonce=_other_nonce()), "dpop_nonce_unknown"),
    ("nonce_padded", lambda: proof(nonce=challenge.issue(SEALER, now=now_ms()) + "="), "dpop_nonce_unknown"),
    ("nonce_long", lambda: proof(nonce="a" * 5000), "dpop_claim"),
    ("nonce_number", lambda: proof(nonce=7), "dpop_claim"),
    ("nonce_ahead", lambda: proof(nonce=challenge.issue(SEALER, now=now_ms() + 20_000)), "dpop_nonce_ahead"),
    ("two_proofs", lambda: f"{proof()},{proof()}", "header_twice"),
    ("two_proofs_spaced", lambda: f"{proof()}, {proof()}", "header_twice"),
    ("empty", lambda: " ", "header_twice"),
    ("five_parts", lambda: proof() + ".AAAA.AAAA", "dpop_not_compact"),
]


def _other_nonce() -> str:
    sealer = Sealer.derive([b"a secret of the tests"], label=b"challenge", epoch=2)
    return challenge.issue(sealer, now=now_ms())


@pytest.mark.parametrize(("make", "cause"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_oa_3_a_proof_that_is_not_as_it_must_be_is_refused(make: _ROW, cause: str) -> None:
    found = refusal(make())
    assert (found.error, found.cause) == ("invalid_dpop_proof", cause)


def test_oa_3_the_wrong_hash_of_the_access_token_is_refused_and_the_right_one_is_not() -> None:
    token = "an access token"
    assert check(proof(ath=dpop.token_hash(token)), access_token=token).jkt == thumbprint(KEY)
    for wrong in (dpop.token_hash("another"), "é", "", None, GONE):
        found = refusal(proof(ath=wrong), access_token=token)
        assert (found.error, found.cause in ("dpop_ath", "dpop_claim")) == ("invalid_dpop_proof", True)


def test_a_missing_proof_is_none() -> None:
    with pytest.raises(OAuthError, match="invalid_dpop_proof"):
        dpop.check_proof(request(), challenges=SEALER)


def test_a_proof_by_another_key_than_the_credentials_is_refused() -> None:
    found = refusal(proof(), expected_jkt=thumbprint(new_key("p256")))
    assert (found.error, found.cause) == ("invalid_dpop_proof", "dpop_other_key")


@pytest.mark.parametrize(
    ("offset", "good"), [(-60_000, True), (60_000, True), (-60_001, False), (60_001, False)]
)
def test_a_proof_is_good_for_a_minute_on_either_side(offset: int, good: bool) -> None:
    made = now_ms() // 1000 * 1000
    moment = made + offset
    token = proof(iat=made // 1000, nonce=challenge.issue(SEALER, now=moment))
    asked = request(headers={"DPoP": token}, now=moment)
    if good:
        assert dpop.check_proof(asked, challenges=SEALER).jkt == thumbprint(KEY)
        return
    with pytest.raises(OAuthError, match="iat"):
        dpop.check_proof(asked, challenges=SEALER)


# --- the server's nonce -----------------------------------------------------------------------------------


def test_a_proof_without_a_nonce_is_told_a_fresh_one_that_works() -> None:
    found = refusal(proof(nonce=GONE))
    assert (found.error, found.cause) == ("use_dpop_nonce", "dpop_nonce_missing")
    assert check(proof(nonce=found.headers["DPoP-Nonce"])).jkt == thumbprint(KEY)


def test_oa_3_a_stale_nonce_is_told_a_fresh_one_and_a_young_one_counts() -> None:
    young = challenge.issue(SEALER, now=now_ms() - challenge.LIFETIME_MS + 5_000)
    assert check(proof(nonce=young)).jkt == thumbprint(KEY)
    found = refusal(proof(nonce=challenge.issue(SEALER, now=now_ms() - challenge.LIFETIME_MS - 1)))
    assert (found.error, found.cause) == ("use_dpop_nonce", "dpop_nonce_expired")
    assert check(proof(nonce=found.headers["DPoP-Nonce"])).jkt == thumbprint(KEY)


def test_a_bad_proof_is_told_so_before_its_nonce_is_looked_at() -> None:
    """Otherwise a client would try a proof again that can never hold."""
    assert refusal(proof(nonce=GONE, htm="GET")).error == "invalid_dpop_proof"
    assert refusal(proof(nonce=GONE), expected_jkt="another").error == "invalid_dpop_proof"


def test_nonces_are_unpredictable_and_of_the_characters_that_the_header_may_have() -> None:
    made = {challenge.issue(SEALER, now=1) for _ in range(1000)}
    assert len(made) == 1000
    assert {len(each) for each in made} == {43}


# --- OA-2: htm and htu ------------------------------------------------------------------------------------

URL = "https://attestd.example.org/oauth/token"
SAME = [
    URL,
    "HTTPS://Attestd.Example.ORG/oauth/token",
    "https://attestd.example.org:443/oauth/token",
    URL + "?a=b",
    URL + "#part",
    URL + "?a=b#part",
    "https://attestd.example.org/oauth/%74oken",
    "https://attestd.example.org/oauth/./token",
    "https://attestd.example.org/x/../oauth/token",
]
DIFFERENT = [
    "https://attestd.example.org/oauth/introspect",
    "https://attestd.example.org/OAuth/token",
    "https://attestd.example.org/oauth/token/",
    "https://attestd.example.org//oauth/token",
    "https://attestd.example.org/oauth%2Ftoken",
    "https://attestd.example.org./oauth/token",
    "https://attestd.example.org:8443/oauth/token",
    "https://attestd.example.org:80/oauth/token",
    "http://attestd.example.org/oauth/token",
    "https://attestd.example.org.evil.example/oauth/token",
    "https://evil.example/oauth/token",
    "https://attestd.example.org@evil.example/oauth/token",
    "https://evil.example\\@attestd.example.org/oauth/token",
    "https://user@attestd.example.org/oauth/token",
    "https://attestd.example.org:0443x/oauth/token",
    "//attestd.example.org/oauth/token",
    "/oauth/token",
    "ftp://attestd.example.org/oauth/token",
    "https:///oauth/token",
    "https://attestd.example.org/oauth/token ",
    "https://attestd.example.org\n/oauth/token",
    "https://[::1/oauth/token",
    "",
]


@pytest.mark.parametrize("htu", SAME)
def test_oa_2_what_rfc_3986_calls_equal_is_equal(htu: str) -> None:
    asked = request(headers={"DPoP": proof(htu=htu)}, url=URL)
    assert dpop.check_proof(asked, challenges=SEALER).jkt == thumbprint(KEY)


@pytest.mark.parametrize("htu", DIFFERENT)
def test_oa_2_another_url_is_another_url(htu: str) -> None:
    asked = request(headers={"DPoP": proof(htu=htu)}, url=URL)
    with pytest.raises(OAuthError) as caught:
        dpop.check_proof(asked, challenges=SEALER)
    assert caught.value.cause in ("dpop_htu", "dpop_uri", "dpop_claim")


@pytest.mark.parametrize("htm", ["GET", "post", "Post", "POST ", "", None, 1])
def test_oa_2_another_method_is_another_method(htm: Any) -> None:
    assert refusal(proof(htm=htm)).cause in ("dpop_htm", "dpop_claim")


@pytest.mark.parametrize(
    "name", ["Host", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Original-URL"]
)
def test_oa_2_no_header_moves_the_url(name: str) -> None:
    spoofed = {name: "evil.example"}
    bad = proof(htu="https://evil.example/oauth/token")
    with pytest.raises(OAuthError, match="htu"):
        dpop.check_proof(request(headers={"DPoP": bad, **spoofed}), challenges=SEALER)
    good = request(headers={"DPoP": proof(), **spoofed})
    assert dpop.check_proof(good, challenges=SEALER).jkt == thumbprint(KEY)


def test_the_mtls_listener_has_a_url_of_its_own() -> None:
    alias = "https://attestd.example.org:8441/oauth/token"
    asked = request(headers={"DPoP": proof(htu=alias)}, url=alias)
    assert dpop.check_proof(asked, challenges=SEALER).jkt == thumbprint(KEY)
    with pytest.raises(OAuthError, match="htu"):
        dpop.check_proof(replace(asked, url=URL), challenges=SEALER)


def test_ipv6_hosts_and_empty_paths_have_one_spelling() -> None:
    assert uri.normalise("http://[::1]:80") == "http://[::1]/"
    assert uri.same("https://a.example", "https://A.example:443/")
    assert not uri.same("http://[::1]:8440/a", "http://[::2]:8440/a")
    assert uri.normalise("https://a.example/../../a/b/..") == "https://a.example/a/"
    assert uri.normalise("https://a.example/a/.") == "https://a.example/a/"


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/é",
        "https://a.example/a b",
        "https://a.example\\@b.example/",
        "https://a.example/\\b",
        "ftp://a.example/",
        "a.example/",
        "https://a.example:port/",
        "https://user:password@a.example/",
    ],
)
def test_oa_2_what_could_be_read_in_two_ways_is_no_url(text: str) -> None:
    with pytest.raises(TokenError) as refusal:
        uri.normalise(text)
    assert refusal.value.reason == "uri"


# --- replay -----------------------------------------------------------------------------------------------


def test_a_replay_key_is_of_its_kind_its_issuer_and_its_jti() -> None:
    keys = {
        replay.spend(kind, issuer, jti, until=0).key
        for kind in ("dpop", "wpt")
        for issuer in ("a", "ab")
        for jti in ("bc", "c", "")
    }
    assert len(keys) == 12
    assert replay.spend("dpop", "a", "b", until=0) == replay.spend("dpop", "a", "b", until=0)


def test_one_proof_has_one_replay_key_and_another_has_another() -> None:
    token = proof()
    assert check(token).spend.key == check(token).spend.key != check(proof()).spend.key
