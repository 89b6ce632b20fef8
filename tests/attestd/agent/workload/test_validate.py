"""A JWT-SVID holds only if every rule of the standard does: one change, one refusal."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestd.agent.workload.validate import LEEWAY_SECONDS, NotValid, validate_jwt_svid
from tests.attestd.agent.workload.domain import Domain, public_jwk

A, B = "https://a.example.org", "https://b.example.org"
NOW = 1_900_000_000_000
DOMAIN = Domain.new()
SUBJECT = DOMAIN.spiffe_id("telemetry")
CLAIMS = {"sub": SUBJECT, "aud": [A, B], "exp": NOW // 1000 + 300}
RSA = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)


def token(
    claims: dict[str, Any] | None = None,
    *,
    key: Any = None,
    algorithm: str = "ES256",
    **headers: Any,
) -> str:
    """A good one but for what is given."""
    content = {**CLAIMS, **(claims or {})}
    content = {name: value for name, value in content.items() if value is not None}
    written = {"kid": "t1", "typ": None, **headers}
    told = {name: value for name, value in written.items() if value is not None or name == "typ"}
    return jwt.encode(content, DOMAIN.tokens if key is None else key, algorithm, headers=told)


def validate(text: str, *, audience: str = A, now: int = NOW, **bundle: Any) -> str:
    found = validate_jwt_svid(
        text, expected_audience=audience, bundle=replace(DOMAIN.bundle, **bundle), now=now
    )
    return found.spiffe_id


def with_key(key: dict[str, Any]) -> str:
    """Published keys: this one."""
    return json.dumps({"keys": [{"kid": "t1", "use": "jwt-svid", **key}]})


def rsa_jwk(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    return json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "good",
    [
        lambda: token(),
        lambda: token({"aud": A}),
        lambda: token({"exp": NOW // 1000 - LEEWAY_SECONDS + 1}),
        lambda: token({"nbf": NOW // 1000 + LEEWAY_SECONDS - 1}),
        lambda: token({"iat": NOW // 1000 + 9999}),
        lambda: token(typ="JWT"),
        lambda: token(typ="JOSE"),
        lambda: token(kid=None),
    ],
)
def test_a_good_one_holds(good: Callable[[], str]) -> None:
    assert validate(good()) == SUBJECT


def test_its_claims_are_given() -> None:
    found = validate_jwt_svid(token({"scope": ["x"]}), expected_audience=B, bundle=DOMAIN.bundle, now=NOW)
    assert found.claims == {**CLAIMS, "scope": ["x"]}


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("audience", lambda: token({"aud": [B]})),
        ("no_audience", lambda: token({"aud": None})),
        ("empty_audience", lambda: token({"aud": []})),
        ("part_of_an_audience", lambda: token({"aud": A[:-1]})),
        ("audience_number", lambda: token({"aud": [5]})),
        ("expired", lambda: token({"exp": NOW // 1000 - LEEWAY_SECONDS})),
        ("no_end", lambda: token({"exp": None})),
        ("end_as_text", lambda: token({"exp": str(NOW)})),
        ("end_true", lambda: token({"exp": True})),
        ("not_yet", lambda: token({"nbf": NOW // 1000 + LEEWAY_SECONDS + 1})),
        ("nbf_as_text", lambda: token({"nbf": "0"})),
        ("no_subject", lambda: token({"sub": None})),
        ("subject_no_spiffe_id", lambda: token({"sub": "telemetry"})),
        ("subject_of_the_domain", lambda: token({"sub": "spiffe://example.org"})),
        ("subject_dotted", lambda: token({"sub": "spiffe://example.org/a/../b"})),
        ("foreign_domain", lambda: token({"sub": "spiffe://elsewhere.org/agent/telemetry"})),
        ("another_key", lambda: token(key=ec.generate_private_key(ec.SECP256R1()))),
        ("another_key_without_kid", lambda: token(key=ec.generate_private_key(ec.SECP256R1()), kid=None)),
        ("unknown_kid", lambda: token(kid="t2")),
        ("empty_kid", lambda: token(kid="")),
        ("wit", lambda: token(typ="wit+jwt")),
        ("typ_case", lambda: token(typ="jwt")),
        ("own_key", lambda: token(jwk=public_jwk(DOMAIN.tokens))),
        ("key_address", lambda: token(jku="https://elsewhere.example/keys")),
        ("certificate", lambda: token(x5c=[])),
        ("critical", lambda: token(crit=["b64"], b64=True)),
        ("none", lambda: token(key="", algorithm="none")),
        ("hmac", lambda: token(key="x" * 32, algorithm="HS256")),
        ("eddsa_named", lambda: token().replace(token().split(".")[0], header(alg="EdDSA", kid="t1"))),
        ("two_parts", lambda: token().rpartition(".")[0]),
        ("four_parts", lambda: token() + ".x"),
        ("no_signature", lambda: token().rpartition(".")[0] + "."),
        ("empty", lambda: ""),
        ("text", lambda: "a.b.c"),
        ("deep", lambda: jwt.utils.base64url_encode(b"[" * 9000).decode() + ".e30.e30"),
        ("long", lambda: token({"x": "x" * 17_000})),
    ],
)
def test_a_bad_one_does_not(what: str, bad: Callable[[], str]) -> None:
    with pytest.raises(NotValid):
        validate(bad())


def header(**members: Any) -> str:
    return jwt.utils.base64url_encode(json.dumps(members).encode()).decode()


def test_a_published_key_of_a_secret_kind_signs_nothing() -> None:
    """The public key's bytes as a secret: the oldest trick."""
    published = with_key({"kty": "oct", "k": jwt.utils.base64url_encode(b"x" * 32).decode()})
    with pytest.raises(NotValid):
        validate(token(key="x" * 32, algorithm="HS256"), jwt_keys=published)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_rsa_keys_of_a_size_hold(algorithm: str) -> None:
    assert validate(token(key=RSA, algorithm=algorithm), jwt_keys=with_key(rsa_jwk(RSA))) == SUBJECT


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_small_rsa_keys_do_not() -> None:
    with pytest.raises(NotValid):
        validate(token(key=SMALL, algorithm="RS256"), jwt_keys=with_key(rsa_jwk(SMALL)))


@pytest.mark.parametrize(("algorithm", "curve"), [("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1())])
def test_other_curves_hold_under_their_own_algorithm_only(algorithm: str, curve: Any) -> None:
    key = ec.generate_private_key(curve)
    published = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    text = token(key=key, algorithm=algorithm)
    assert validate(text, jwt_keys=with_key(published)) == SUBJECT
    with pytest.raises(NotValid):
        validate(text, jwt_keys=with_key({**published, "alg": "ES256"}))
    with pytest.raises(NotValid):
        validate(
            text.replace(text.split(".")[0], header(alg="ES256", kid="t1")), jwt_keys=with_key(published)
        )


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_a_key_whose_private_half_is_published_signs_nothing(kind: str) -> None:
    if kind == "EC":
        key, algorithm, public = DOMAIN.tokens, "ES256", public_jwk(DOMAIN.tokens)
        private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(DOMAIN.tokens))
    else:
        key, algorithm, public = RSA, "RS256", rsa_jwk(RSA)
        private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA))
        private.pop("key_ops")
    text = token(key=key, algorithm=algorithm)
    assert validate(text, jwt_keys=with_key(public)) == SUBJECT
    with pytest.raises(NotValid):
        validate(text, jwt_keys=with_key({**public, **private}))


def test_a_key_for_another_use_does_not_count() -> None:
    key = public_jwk(DOMAIN.tokens)
    assert validate(token(), jwt_keys=with_key(key)) == SUBJECT
    with pytest.raises(NotValid):
        validate(token(), jwt_keys=with_key({**key, "use": "wit-svid"}))


@pytest.mark.parametrize("keys", ["", "{}", "[]", '{"keys": []}', '{"keys": [{"kty": "EC"}]}', '{"keys": 5}'])
def test_without_keys_nothing_holds(keys: str) -> None:
    with pytest.raises(NotValid):
        validate(token(), jwt_keys=keys)


def test_keys_of_one_trust_domain_hold_for_no_other() -> None:
    with pytest.raises(NotValid):
        validate(token(), trust_domain="elsewhere.org")


def test_every_flipped_character_is_refused() -> None:
    text = token()
    for place in range(len(text)):
        other = "A" if text[place] != "A" else "B"
        flipped = text[:place] + other + text[place + 1 :]
        # The last two bits of base64url mean nothing.
        same = jwt.utils.base64url_decode(flipped[-86:]) == jwt.utils.base64url_decode(text[-86:])
        if same and place == len(text) - 1:
            continue
        with pytest.raises(NotValid):
            validate(flipped)
