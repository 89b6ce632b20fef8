"""A proof is for one request, by one key, and says what the standards say in the form that they say."""

import json
from base64 import urlsafe_b64decode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from attestd.agent.proofs import dpop_proof, nonce_of, target, token_hash, workload_proof

NOW = 1_764_092_287_123
URL = "https://tools.example.org/ledger?account=7#top"


class Key:
    """A key in memory that signs as a TPM's does."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, str]:
        point = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {name: point[name] for name in ("kty", "crv", "x", "y")}

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def header_of(token: str) -> dict[str, Any]:
    part = token.split(".")[0]
    members: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return members


def claims_of(token: str, key: Key, **expected: Any) -> dict[str, Any]:
    """By a library of others."""
    claims: dict[str, Any] = jwt.decode(
        token,
        key.private.public_key(),
        algorithms=["ES256"],
        options={"verify_exp": False, "verify_iat": False},
        **expected,
    )
    return claims


def test_a_dpop_proof_names_its_request_its_key_and_its_moment() -> None:
    key = Key()
    proof = dpop_proof(key, "POST", URL, now=NOW)
    assert header_of(proof) == {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk}
    claims = claims_of(proof, key)
    assert len(claims.pop("jti")) >= 22
    assert claims == {"htm": "POST", "htu": "https://tools.example.org/ledger", "iat": NOW // 1000}


def test_a_dpop_proof_has_nonce_and_token_where_there_are_any() -> None:
    key = Key()
    claims = claims_of(dpop_proof(key, "GET", URL, now=NOW, nonce="n-1", access_token="t.t.t"), key)
    assert (claims["nonce"], claims["ath"]) == ("n-1", token_hash("t.t.t"))


@pytest.mark.parametrize("nonce", ["n-1", None])
def test_the_nonce_of_a_proof_can_be_told(nonce: str | None) -> None:
    assert nonce_of(dpop_proof(Key(), "GET", URL, now=NOW, nonce=nonce)) == nonce


def test_no_two_proofs_are_alike() -> None:
    key = Key()
    made = {claims_of(dpop_proof(key, "GET", URL, now=NOW), key)["jti"] for _ in range(50)}
    assert len(made) == 50


def test_the_hash_of_a_token_is_that_of_rfc_9449() -> None:
    """The example of section 7.1."""
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    assert token_hash(token) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def test_a_workload_proof_is_for_one_wit_and_ends_within_a_minute() -> None:
    key = Key()
    proof = workload_proof(key, "w.w.w", URL, now=NOW)
    assert header_of(proof) == {"typ": "wpt+jwt", "alg": "ES256"}
    claims = claims_of(proof, key, audience="https://tools.example.org/ledger")
    assert len(claims.pop("jti")) >= 22
    assert claims == {
        "aud": "https://tools.example.org/ledger",
        "exp": NOW // 1000 + 60,
        "wth": token_hash("w.w.w"),
    }


def test_a_workload_proof_covers_what_else_says_who_somebody_is() -> None:
    key = Key()
    others = {"oauth-client-attestation": " a.a.a\t"}
    proof = workload_proof(key, "w.w.w", URL, now=NOW, access_token="t.t.t", others=others)
    claims = claims_of(proof, key, audience="https://tools.example.org/ledger")
    assert claims["ath"] == token_hash("t.t.t")
    assert claims["oth"] == {"oauth-client-attestation": token_hash("a.a.a")}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example", "https://a.example/"),
        ("https://a.example/x?y=1#z", "https://a.example/x"),
        ("https://user:secret@a.example:8443/x", "https://a.example:8443/x"),
        ("http://[::1]:8080/%7Ex", "http://[::1]:8080/%7Ex"),
    ],
)
def test_a_target_has_no_query_fragment_or_user(url: str, expected: str) -> None:
    assert target(url) == expected


@pytest.mark.parametrize("url", ["", "/ledger", "a.example/x", "https:///x", "mailto:a@b.example"])
def test_what_is_no_absolute_url_is_no_target(url: str) -> None:
    with pytest.raises(ValueError, match="absolute URL"):
        target(url)
