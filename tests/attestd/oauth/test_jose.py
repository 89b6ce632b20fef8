"""Are inbound tokens read without believing them, and verified with keys that we chose?"""

import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestd.oauth import jose
from attestd.oauth.claims import Claims
from attestd.oauth.client.attestation import confirmed_key
from attestd.oauth.errors import TokenError
from tests.attestd.oauth.agents import GONE, changed, compact, public
from tests.attester import b64url, new_key

KEY = new_key("p256")
TYP = "wpt+jwt"
HEADER = {"alg": "ES256", "typ": TYP}
CLAIMS = {"sub": "somebody", "jti": "1"}


def verified(token: str, key: Any = None) -> Claims:
    return jose.verify(jose.read(token, typ={TYP}), (key or KEY).public_key(), alg="ES256")


def reason(token: str, **wanted: Any) -> str:
    with pytest.raises(TokenError) as refusal:
        jose.read(token, **{"typ": {TYP}, **wanted})
    return refusal.value.reason


def test_a_token_of_the_wanted_kind_by_the_chosen_key_is_believed() -> None:
    assert verified(compact(KEY, HEADER, CLAIMS)).members == CLAIMS
    assert verified(compact(KEY, {**HEADER, "kid": "a", "x5t": "ignored"}, CLAIMS)).text("sub") == "somebody"
    assert verified(compact(KEY, {**HEADER, "typ": "application/WPT+JWT"}, CLAIMS)).text("jti") == "1"


HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("none", {"alg": "none"}, "alg"),
    ("symmetric", {"alg": "HS256"}, "alg"),
    ("unknown_algorithm", {"alg": "ES257"}, "alg"),
    ("no_algorithm", {"alg": GONE}, "alg"),
    ("algorithm_no_text", {"alg": ["ES256"]}, "alg"),
    ("not_for_this_kind", {"alg": "RS256"}, "alg"),
    ("key_encryption", {"alg": "RSA-OAEP", "enc": "A256GCM"}, "alg"),
    ("jwk", {"jwk": public(KEY)}, "header_key"),
    ("jku", {"jku": "http://127.0.0.1:1/keys"}, "header_key"),
    ("x5u", {"x5u": "file:///etc/passwd"}, "header_key"),
    ("x5c", {"x5c": ["MIIB"]}, "header_key"),
    ("crit", {"crit": ["exp"]}, "header_unknown"),
    ("crit_empty", {"crit": []}, "header_unknown"),
    ("unencoded", {"b64": False}, "header_unknown"),
    ("compressed", {"zip": "DEF"}, "header_unknown"),
    ("encrypted", {"enc": "A128GCM"}, "header_unknown"),
    ("another_typ", {"typ": "dpop+jwt"}, "typ"),
    ("typ_missing", {"typ": GONE}, "typ"),
    ("typ_null", {"typ": None}, "typ"),
    ("typ_longer", {"typ": "wpt+jwt+more"}, "typ"),
    ("kid_no_text", {"kid": 7}, "header_malformed"),
]


@pytest.mark.parametrize(
    ("change", "expected"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS]
)
def test_mt_7_a_doubtful_header_is_refused_whoever_signed(change: dict[str, Any], expected: str) -> None:
    assert reason(compact(KEY, changed(HEADER, change), CLAIMS)) == expected


def _head(raw: bytes) -> str:
    return compact(KEY, raw, CLAIMS)


def _body(raw: bytes) -> str:
    return compact(KEY, HEADER, raw)


_GOOD = compact(KEY, HEADER, CLAIMS)
_PARTS = _GOOD.split(".")
BYTES: list[tuple[str, str, str]] = [
    ("header_member_twice", _head(b'{"alg":"none","alg":"ES256","typ":"wpt+jwt"}'), "header_malformed"),
    ("header_no_object", _head(b'["ES256"]'), "header_malformed"),
    ("header_no_json", _head(b"{"), "header_malformed"),
    ("claim_twice", _body(b'{"sub":"a","sub":"b"}'), "claims_malformed"),
    ("claims_no_object", _body(b'"sub"'), "claims_malformed"),
    ("claims_infinite", _body(b'{"exp":Infinity}'), "claims_malformed"),
    ("claims_huge", _body(b'{"exp":1' + b"0" * 400 + b"}"), "claims_malformed"),
    ("claims_fraction", _body(b'{"exp":1764000000.5}'), "claims_malformed"),
    ("claims_nul", _body(b'{"sub":"a\\u0000"}'), "claims_malformed"),
    ("two_parts", ".".join(_PARTS[:2]), "not_compact"),
    ("five_parts", _GOOD + ".AAAA.AAAA", "not_compact"),
    ("nothing", "", "not_compact"),
    ("json_serialisation", json.dumps({"payload": _PARTS[1], "signatures": []}), "not_compact"),
    ("signature_missing", f"{_PARTS[0]}.{_PARTS[1]}.", "base64"),
    ("padded", f"{_PARTS[0]}.{_PARTS[1]}.{_PARTS[2]}==", "base64"),
    ("junk", f"{_PARTS[0]}.{_PARTS[1]}.{_PARTS[2][:-4]}!!{_PARTS[2][-4:]}", "base64"),
    ("line_feed", f"{_PARTS[0]}.{_PARTS[1]}.{_PARTS[2]}\n", "base64"),
    ("standard_alphabet", f"{_PARTS[0]}.{_PARTS[1]}.{'+/' * 43}", "base64"),
    ("unused_bits", f"{_PARTS[0]}.{_PARTS[1]}.{'A' * 85}B", "base64"),
    ("not_ascii", f"{_PARTS[0]}.{_PARTS[1]}.{'é' * 86}", "base64"),
    ("oversized", _body(json.dumps({"sub": "a" * jose.MAX_SIZE}).encode()), "oversized"),
]


@pytest.mark.parametrize(("token", "expected"), [row[1:] for row in BYTES], ids=[row[0] for row in BYTES])
def test_mt_7_what_is_no_compact_jws_of_two_objects_is_refused(token: str, expected: str) -> None:
    assert reason(token) == expected


@pytest.mark.parametrize(
    "junk", ["." * 5_000_000, "A" * 5_000_000, "." * jose.MAX_SIZE], ids=["dots", "text", "short"]
)
def test_mt_7_five_megabytes_of_dots_cost_nothing(junk: str) -> None:
    def cost() -> float:
        started = time.perf_counter()
        assert reason(junk) in ("oversized", "not_compact")
        return time.perf_counter() - started

    assert min(cost() for _ in range(5)) < 0.02


def test_a_key_in_the_header_is_read_where_it_is_wanted_and_must_be_there_then() -> None:
    shown = compact(KEY, {**HEADER, "jwk": public(KEY)}, CLAIMS)
    assert jose.read(shown, typ={TYP}, embedded_key=True).header["jwk"] == public(KEY)
    assert reason(compact(KEY, HEADER, CLAIMS), embedded_key=True) == "header_key"
    assert reason(compact(KEY, {**HEADER, "jwk": "key"}, CLAIMS), embedded_key=True) == "header_key"
    both = {**HEADER, "jwk": public(KEY), "jku": "https://a.example"}
    assert reason(compact(KEY, both, CLAIMS), embedded_key=True) == "header_key"


@pytest.mark.parametrize("typ", [None, "JWT"])
def test_a_kind_that_may_be_left_out_may_be(typ: str | None) -> None:
    header = {"alg": "ES256"} | ({} if typ is None else {"typ": typ})
    assert jose.read(compact(KEY, header, CLAIMS), typ=(None, "jwt")).alg == "ES256"


# --- signatures -------------------------------------------------------------------------------------------


def signature_reason(token: str, key: Any, *, alg: str = "ES256") -> str:
    with pytest.raises(TokenError) as refusal:
        jose.verify(jose.read(token, typ={TYP}, algs=jose.ISSUER_ALGS), key.public_key(), alg=alg)
    return refusal.value.reason


def test_a_signature_by_another_key_or_over_other_bytes_does_not_hold() -> None:
    head, body, signature = _PARTS
    assert verified(_GOOD).members == CLAIMS
    assert signature_reason(_GOOD, new_key("p256")) == "bad_signature"
    other = b64url(json.dumps({**CLAIMS, "sub": "somebody else"}).encode())
    assert signature_reason(f"{head}.{other}.{signature}", KEY) == "bad_signature"
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert signature_reason(f"{head}.{body}.{flipped}", KEY) == "bad_signature"


SIGNATURES = {
    "zero": bytes(64),
    "short": bytes(63),
    "long": bytes(65),
    "der": bytes.fromhex("3006020101020101"),
    "order": bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551") * 2,
}


@pytest.mark.parametrize("value", SIGNATURES.values(), ids=SIGNATURES)
def test_mt_7_a_signature_value_that_no_key_makes_does_not_hold(value: bytes) -> None:
    assert signature_reason(f"{_PARTS[0]}.{_PARTS[1]}.{b64url(value)}", KEY) == "bad_signature"


def test_an_ecdsa_signature_with_zeros_cut_off_does_not_hold() -> None:
    """ES256 is r and s at full width (RFC 7518, 3.4), and there is one way to write each."""
    for _ in range(4000):
        token = compact(KEY, HEADER, CLAIMS)
        head, body, signature = token.split(".")
        raw = jose.read(token, typ={TYP}).signature
        if raw[0] == 0:
            assert verified(token).members == CLAIMS
            assert signature_reason(f"{head}.{body}.{b64url(raw[1:])}", KEY) == "bad_signature"
            assert signature != b64url(raw[1:])
            return
    raise AssertionError("no signature began with a zero byte")


def test_mt_7_the_keys_own_algorithm_counts_and_not_the_tokens() -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = b64url(json.dumps({"alg": "HS256", "typ": TYP}).encode())
    forged = f"{header}.{_PARTS[1]}"
    mac = b64url(hmac.new(pem, forged.encode(), "sha256").digest())
    assert reason(f"{forged}.{mac}") == "alg"
    assert reason(f"{forged}.{mac}", algs={"HS256", "ES256"}) == "alg", "whatever a caller lists"
    assert signature_reason(compact(KEY, {**HEADER, "alg": "ES384"}, CLAIMS), KEY, alg="ES256") == "alg"
    assert (
        signature_reason(compact(KEY, {**HEADER, "alg": "ES384"}, CLAIMS), KEY, alg="ES384")
        == "bad_signature"
    )


@pytest.mark.parametrize(
    "alg", ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]
)
def test_every_algorithm_of_an_issuer_is_verified_as_another_library_signs_it(alg: str) -> None:
    curves: dict[str, ec.EllipticCurve] = {"ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    key: Any = rsa.generate_private_key(65537, 2048)
    if alg.startswith("ES"):
        key = ec.generate_private_key(curves.get(alg, ec.SECP256R1()))
    token = jwt.encode(CLAIMS, key, algorithm=alg, headers={"typ": TYP})
    read = jose.read(token, typ={TYP}, algs=jose.ISSUER_ALGS)
    assert jose.verify(read, key.public_key(), alg=alg).members == CLAIMS
    assert signature_reason(token, _another(key), alg=alg) == "bad_signature"
    other = alg[:2] + {"256": "384", "384": "512", "512": "256"}[alg[2:]]
    assert signature_reason(token, key, alg=other) == "alg"


def _another(key: Any) -> Any:
    if isinstance(key, rsa.RSAPrivateKey):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(key.curve)


def test_mt_7_a_key_on_another_curve_of_the_same_size_is_no_key_of_the_algorithm() -> None:
    foreign = ec.generate_private_key(ec.SECP256K1())
    assert signature_reason(compact(foreign, HEADER, CLAIMS), foreign) == "bad_signature"


def test_mt_7_a_signature_value_has_one_width() -> None:
    """A zero more in front of s leaves both numbers as they were."""
    head, body, _ = _PARTS
    raw = jose.read(_GOOD, typ={TYP}).signature
    assert signature_reason(f"{head}.{body}.{b64url(raw[:32] + bytes(1) + raw[32:])}", KEY) == "bad_signature"


def test_mt_7_an_algorithm_that_is_no_text_is_none_of_any_collection() -> None:
    token = compact(KEY, {**HEADER, "alg": ["ES256"]}, CLAIMS)
    assert reason(token, algs=frozenset({"ES256"})) == reason(token, algs=["ES256"]) == "alg"


# --- the published vector ---------------------------------------------------------------------------------


def test_the_published_workload_identity_token_is_read_and_its_ed25519_key_is_none_of_ours() -> None:
    """The example of draft-ietf-wimse-workload-creds: its members, under a signature that is not
    checked here. The WIT-SVID profile forbids EdDSA, so its `cnf` names no key that we take."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "1CXXvflN_LVVsIsYXsUvB03JmlGWeCHqQVuouCF92bg", "alg": "EdDSA"}
    claims = {
        "sub": "wimse://example.com/specific-workload",
        "exp": 1745512510,
        "iat": 1745508910,
        "jti": "x-_1CTL2cca3CSE4cwb_l",
        "cnf": {"jwk": jwk},
    }
    token = compact(KEY, {"alg": "ES256", "kid": "June 5", "typ": "wit+jwt"}, claims)
    read = jose.read(token, typ={"wit+jwt"})
    assert (read.kid, read.alg, read.claims.text("sub")) == ("June 5", "ES256", claims["sub"])
    assert (read.claims.time("exp"), read.claims.token_id()) == (1745512510_000, claims["jti"])
    with pytest.raises(TokenError, match="cnf"):
        confirmed_key(read.claims)


# --- claims -----------------------------------------------------------------------------------------------

NOW = 1_764_000_000_000
SECOND = NOW // 1000


@pytest.mark.parametrize("value", [None, True, "1764000000", [1], {}, 0, -1, 253_402_300_800])
def test_mt_8_a_time_is_a_whole_number_of_seconds(value: Any) -> None:
    with pytest.raises(TokenError) as refusal:
        Claims({"exp": value}).time("exp")
    assert refusal.value.reason == "claim"
    assert Claims({"exp": SECOND}).time("exp") == NOW


@pytest.mark.parametrize("value", [None, 7, "", ["a"], "a" * 2049])
def test_mt_8_a_text_is_text(value: Any) -> None:
    for read in (Claims({"sub": value}).text, Claims({"sub": value}).optional_text):
        with pytest.raises(TokenError):
            read("sub")
    assert Claims({"sub": "a" * 2048}).text("sub")
    assert Claims({}).optional_text("sub") is None


AUDIENCES: list[tuple[Any, bool]] = [
    ("https://a", True),
    (["https://a"], True),
    ("https://a/", False),
    ("https://b", False),
    (["https://a", "https://b"], False),
    (["https://b", "https://a"], False),
    (["https://a", "https://a"], False),
    ([], False),
    ("", False),
    (None, False),
    (7, False),
    ([7], False),
    ({"https://a": 1}, False),
]


@pytest.mark.parametrize(("value", "good"), AUDIENCES)
def test_mt_8_the_sole_audience_is_this_one_and_nobody_else(value: Any, good: bool) -> None:
    claims = Claims({"aud": value})
    if good:
        claims.require_sole_audience("https://a")
        return
    with pytest.raises(TokenError) as refusal:
        claims.require_sole_audience("https://a")
    assert refusal.value.reason == "aud"


@pytest.mark.parametrize("value", [None, 7, "", [], [""], [7], ["https://a", None], {"https://a": 1}])
def test_mt_8_an_audience_is_text_or_texts(value: Any) -> None:
    with pytest.raises(TokenError) as refusal:
        Claims({"aud": value}).audience()
    assert refusal.value.reason == "aud"
    assert Claims({"aud": ["https://a", "https://b"]}).audience() == ("https://a", "https://b")
    assert Claims({"aud": "https://a"}).audience() == ("https://a",)


TIMES: list[tuple[dict[str, Any], str | None]] = [
    ({"exp": SECOND + 1}, None),
    ({"exp": SECOND + 120, "iat": SECOND, "nbf": SECOND}, None),
    ({"exp": SECOND + 60, "iat": SECOND + 5}, None),
    ({}, "claim"),
    ({"exp": SECOND}, "expired"),
    ({"exp": SECOND - 1}, "expired"),
    ({"exp": SECOND + 60, "nbf": SECOND + 6}, "not_yet"),
    ({"exp": SECOND + 60, "iat": SECOND + 6}, "not_yet"),
    ({"exp": SECOND + 60, "iat": None}, "claim"),
    ({"exp": SECOND + 126}, "lifetime"),
    ({"exp": SECOND + 315_360_000}, "lifetime"),
]


@pytest.mark.parametrize(("members", "expected"), TIMES)
def test_a_short_token_is_good_now_and_ends_soon(members: dict[str, Any], expected: str | None) -> None:
    claims = Claims(members)
    if expected is None:
        assert claims.require_short(now=NOW, seconds=120) == members["exp"] * 1000
        return
    with pytest.raises(TokenError) as refusal:
        claims.require_short(now=NOW, seconds=120)
    assert refusal.value.reason == expected
