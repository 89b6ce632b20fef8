"""Is a credential bound to nothing but a sound public key, written in its one way?"""

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey

from attestd.issue.jwk import base64url, from_public_key, public_jwk, read_jwk, thumbprint
from tests.attestd.issue.material import jwk_of
from tpm.errors import NoncanonicalError, StructureError

JWKS = Path(__file__).parents[2] / "vectors" / "spiffe" / "java-jwtbundle" / "jwks_valid_RSA_EC.json"
FOREIGN_RSA, FOREIGN_EC = json.loads(JWKS.read_text())["keys"]

P256 = jwk_of(ec.derive_private_key(7, ec.SECP256R1()))
P384 = jwk_of(ec.derive_private_key(7, ec.SECP384R1()), alg="ES384")
RSA = {"kty": "RSA", "alg": "PS256", "n": FOREIGN_RSA["n"], "e": "AQAB"}
# The x of this multiple of the generator begins with a zero byte.
SHORT_X = next(
    jwk
    for jwk in (jwk_of(ec.derive_private_key(n, ec.SECP256R1())) for n in range(1, 5000))
    if urlsafe_b64decode(str(jwk["x"]) + "=")[0] == 0
)

Change = Callable[[dict[str, Any]], dict[str, Any]]


def number(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def raw(text: object) -> bytes:
    return urlsafe_b64decode(str(text) + "=" * (-len(str(text)) % 4))


@pytest.mark.parametrize("jwk", [P256, P384, RSA, SHORT_X, {**FOREIGN_EC, "alg": "ES256"} | {"kid": None}])
def test_a_sound_key_is_read_and_written_alike(jwk: dict[str, Any]) -> None:
    members = {name: value for name, value in jwk.items() if value is not None}
    key = read_jwk(members)
    assert {**key.jwk, "alg": key.alg} == members
    assert from_public_key(key.public, alg=key.alg).jwk == key.jwk


@pytest.mark.parametrize("jwk", [P256, P384, RSA])
def test_the_thumbprint_is_that_of_others(jwk: dict[str, Any]) -> None:
    members = {name: value for name, value in jwk.items() if name != "alg"}
    theirs = (RSAKey if jwk["kty"] == "RSA" else ECKey).import_key(members)
    assert read_jwk(jwk).thumbprint == theirs.thumbprint()


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awa"
        "pJzKnqDKgw"
    )
    expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert thumbprint({"kty": "RSA", "n": n, "e": "AQAB"}) == expected


STRUCTURE: list[tuple[str, dict[str, Any], Change]] = [
    ("bad_jwk", P256, lambda jwk: {}),
    ("bad_jwk", P256, lambda jwk: jwk | {"kty": "oct"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"kty": "OKP", "crv": "Ed25519"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"kty": "ec"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"alg": "none"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"alg": "HS256"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"alg": "ES384"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"alg": "ES512"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"alg": "PS256"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"alg": None}),
    ("bad_jwk", P256, lambda jwk: jwk | {"x": 7}),
    ("bad_jwk", P256, lambda jwk: jwk | {"kid": "mine"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"use": "sig"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"crv": "secp256k1"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"crv": "P-384"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"x": ""}),
    ("bad_jwk", P256, lambda jwk: jwk | {"x": "A"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"x": jwk["x"] + "\n"}),
    ("bad_jwk", P256, lambda jwk: jwk | {"x": "+" + jwk["x"][1:]}),
    ("bad_jwk", P256, lambda jwk: jwk | {"x": base64url(b"\0" + raw(jwk["x"]))}),
    ("bad_jwk", SHORT_X, lambda jwk: jwk | {"x": base64url(raw(jwk["x"])[1:])}),
    ("bad_jwk", P256, lambda jwk: {name: jwk[name] for name in jwk if name != "y"}),
    ("private_jwk", P256, lambda jwk: jwk | {"d": jwk["x"]}),
    ("private_jwk", RSA, lambda jwk: jwk | {"d": FOREIGN_RSA["d"]}),
    ("private_jwk", RSA, lambda jwk: jwk | {"p": FOREIGN_RSA["p"]}),
    ("bad_key", P256, lambda jwk: jwk | {"y": jwk["x"]}),
    ("bad_key", P256, lambda jwk: jwk | {"x": base64url(bytes(32)), "y": base64url(bytes(32))}),
    ("bad_key", P256, lambda jwk: jwk | {"x": base64url(b"\xff" * 32)}),
    ("bad_jwk", RSA, lambda jwk: jwk | {"alg": "ES256"}),
    ("bad_jwk", RSA, lambda jwk: jwk | {"alg": "RS256"}),
]


@pytest.mark.parametrize(("reason", "jwk", "change"), STRUCTURE)
def test_what_is_no_public_key_of_its_algorithm_is_refused(
    reason: str, jwk: dict[str, Any], change: Change
) -> None:
    with pytest.raises(StructureError) as caught:
        read_jwk(change(dict(jwk)))
    assert caught.value.reason == reason
    assert not isinstance(caught.value, NoncanonicalError)


@pytest.mark.parametrize(
    ("reason", "jwk", "change"),
    [
        ("padding", P256, lambda jwk: jwk | {"x": jwk["x"] + "="}),
        ("unused_bits", P256, lambda jwk: jwk | {"x": jwk["x"][:-1] + chr(ord(jwk["x"][-1]) + 1)}),
        ("leading_zero", RSA, lambda jwk: jwk | {"n": base64url(b"\0" + raw(jwk["n"]))}),
        ("leading_zero", RSA, lambda jwk: jwk | {"e": "AAEAAQ"}),
    ],
)
def test_another_writing_of_the_same_key_is_noncanonical(
    reason: str, jwk: dict[str, Any], change: Change
) -> None:
    with pytest.raises(NoncanonicalError) as caught:
        read_jwk(change(dict(jwk)))
    assert caught.value.reason == reason


def without_small_factors(start: int, step: int = 2) -> int:
    """The first number from `start` on that only its size, or being even, makes weak."""
    small = math.prod(range(3, 1000, 2))
    return next(n for n in range(start, start + 10**6, step) if math.gcd(n, small) == 1)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda jwk: jwk | {"n": number(without_small_factors(1 << 1023 | 1))}, id="1024 bits"),
        pytest.param(lambda jwk: jwk | {"n": number(without_small_factors(1 << 2046 | 1))}, id="2047 bits"),
        pytest.param(lambda jwk: jwk | {"n": number(without_small_factors(1 << 4096 | 1))}, id="4097 bits"),
        pytest.param(lambda jwk: jwk | {"e": number(3)}, id="e 3"),
        pytest.param(lambda jwk: jwk | {"e": number(1)}, id="e 1"),
        pytest.param(lambda jwk: jwk | {"e": number(65539)}, id="e 65539"),
        pytest.param(lambda jwk: jwk | {"n": number(without_small_factors(1 << 2047))}, id="even"),
        pytest.param(
            lambda jwk: jwk | {"n": number(997 * without_small_factors(1 << 2040 | 1))}, id="factor"
        ),
    ],
)
def test_mt_3_a_weak_key_is_refused(change: Change) -> None:
    with pytest.raises(StructureError) as caught:
        read_jwk(change(dict(RSA)))
    assert caught.value.reason == "weak_key"


def test_mt_3_a_key_of_the_broken_library_is_refused() -> None:
    """ROCA: such a modulus is a power of 65537 modulo the product of the first 126 primes."""
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, math.isqrt(n) + 1))]
    product = math.prod(primes)
    n = pow(65537, 12345, product) + product * ((1 << 2047) // product + 1)
    wide = n + product * without_small_factors(1 << 1000 | 1)
    for modulus in (n, wide):
        with pytest.raises(StructureError) as caught:
            read_jwk({**RSA, "n": number(modulus)})
        assert "ROCA" in caught.value.detail


@pytest.mark.parametrize("bits", [2048, 4096])
def test_a_modulus_of_the_least_and_of_the_most_bits_is_accepted(bits: int) -> None:
    n = number(without_small_factors(1 << (bits - 1) | 1))
    assert read_jwk({**RSA, "n": n}).jwk["n"] == n


def test_mt_3_a_weak_key_from_elsewhere_is_refused_too() -> None:
    weak = rsa.RSAPublicNumbers(3, int.from_bytes(raw(RSA["n"]), "big")).public_key()
    with pytest.raises(StructureError) as caught:
        from_public_key(weak, alg="PS256")
    assert caught.value.reason == "weak_key"


@pytest.mark.parametrize("curve", [ec.SECP192R1(), ec.SECP224R1(), ec.SECP256K1(), ec.BrainpoolP256R1()])
def test_mt_3_a_curve_that_is_not_used_here_is_refused(curve: ec.EllipticCurve) -> None:
    with pytest.raises(StructureError) as caught:
        from_public_key(ec.derive_private_key(7, curve).public_key(), alg="ES256")
    assert caught.value.reason == "bad_jwk"


@pytest.mark.parametrize(
    ("alg", "accepted"),
    [("ES512", True), ("ES256", False), ("PS256", False), ("none", False), ("HS256", False)],
)
def test_a_key_from_a_tpm_has_its_own_algorithm(alg: str, accepted: bool) -> None:
    public = ec.derive_private_key(7, ec.SECP521R1()).public_key()
    if accepted:
        assert from_public_key(public, alg=alg).jwk == public_jwk(public)
        return
    with pytest.raises(StructureError):
        from_public_key(public, alg=alg)


scalars = (
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([P256["x"], RSA["n"], "AQAB"])
)
names = st.sampled_from(["kty", "alg", "crv", "x", "y", "n", "e", "d", "kid"]) | st.text()
values = scalars | st.sampled_from(["EC", "RSA", "ES256", "PS256", "P-256"]) | st.lists(scalars)


@given(st.dictionaries(names, values))
@example({"kty": "EC", "alg": "ES256", "crv": "P-256", "x": "\ud800", "y": "\0"})
def test_whatever_is_sent_is_a_key_or_a_structure_error(jwk: dict[str, Any]) -> None:
    try:
        key = read_jwk(jwk)
    except StructureError:
        return
    assert {**key.jwk, "alg": key.alg} == jwk


@given(st.sampled_from([P256, P384, RSA]), st.sampled_from(["x", "y", "n", "e"]), st.binary(max_size=600))
def test_whatever_number_is_sent_is_a_key_or_a_structure_error(
    jwk: dict[str, Any], name: str, value: bytes
) -> None:
    changed = jwk | {name: urlsafe_b64encode(value).rstrip(b"=").decode()}
    try:
        key = read_jwk(changed)
    except StructureError:
        return
    assert {**key.jwk, "alg": key.alg} == changed
