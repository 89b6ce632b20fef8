"""Do others verify access tokens and client attestations, and is neither taken for anything else?"""

import json
import time
from base64 import urlsafe_b64decode
from dataclasses import replace
from typing import Any

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey, KeySet

from attestd.issue import access_token, client_attestation, wit
from attestd.issue.access_token import AccessToken
from attestd.issue.discovery import jwks
from attestd.issue.jwk import from_public_key, read_jwk
from attestd.issue.keys import Keys
from attestd.issue.lifetime import expiry
from attestd.issue.statement import CLAIM, Basis, token_id
from tests.attestd.issue.material import EXTERNAL_URL, NOW, SPIFFE_ID, device_key, new_keys, statement
from tpm.errors import EvidenceError, StructureError

TOOL = "https://tools.example.org"
JTI = token_id(bytes(range(16)))
BASIS = Basis("attestation-1", "edge-gateway@3", "ek_verified")
SMALL = AccessToken(
    issuer=EXTERNAL_URL,
    subject=SPIFFE_ID,
    client_id=SPIFFE_ID,
    audience=(TOOL,),
    token_id=JTI,
    basis=BASIS,
    issued_at=NOW,
    expires_at=NOW - NOW % 1000 + 300_000,
)
REQUIRED = {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"}
"""RFC 9068, section 2.2."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return new_keys(tmp_path_factory.mktemp("oauth") / "keys")


def part(token: str, index: int) -> dict[str, Any]:
    text = token.split(".")[index]
    value: dict[str, Any] = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return value


def test_an_access_token_has_the_required_claims_and_nothing_empty(keys: Keys) -> None:
    token = access_token.issue(keys.signer("jwt"), SMALL)
    assert part(token, 0) == {"typ": "at+jwt", "alg": "ES256", "kid": keys.signer("jwt").kid}
    claims = part(token, 1)
    assert claims.keys() == REQUIRED | {CLAIM}
    assert (claims["sub"], claims["client_id"], claims["jti"]) == (SPIFFE_ID, SPIFFE_ID, JTI)
    assert (claims["iat"], claims["exp"]) == (NOW // 1000, NOW // 1000 + 300)
    assert claims[CLAIM] == {
        "attestation": "attestation-1",
        "policy": "edge-gateway@3",
        "assurance": "ek_verified",
    }


def test_an_access_token_says_for_whom_and_by_whom_it_is_used(keys: Keys) -> None:
    actor = {"sub": SPIFFE_ID, "act": {"sub": "spiffe://example.org/agent/planner/x"}}
    details = [{"type": "transfer", "limit": 5}]
    said = replace(
        SMALL,
        subject="alice",
        scope="read write",
        confirmation={"jkt": "thumb"},
        actor=actor,
        authorization_details=details,
    )
    claims = part(access_token.issue(keys.signer("jwt"), said), 1)
    assert (claims["sub"], claims["client_id"]) == ("alice", SPIFFE_ID)
    assert claims["act"] == actor
    assert (claims["scope"], claims["cnf"]) == ("read write", {"jkt": "thumb"})
    assert claims["authorization_details"] == details


@pytest.mark.parametrize(
    ("audience", "said"), [((TOOL,), TOOL), ((TOOL, "urn:example:b"), [TOOL, "urn:example:b"])]
)
def test_one_audience_is_one_string(keys: Keys, audience: tuple[str, ...], said: object) -> None:
    claims = part(access_token.issue(keys.signer("jwt"), replace(SMALL, audience=audience)), 1)
    assert claims["aud"] == said


@pytest.mark.parametrize("audience", [(), ("",), (TOOL, "")])
def test_an_access_token_names_whom_it_is_for(keys: Keys, audience: tuple[str, ...]) -> None:
    with pytest.raises(StructureError) as caught:
        access_token.issue(keys.signer("jwt"), replace(SMALL, audience=audience))
    assert caught.value.reason == "no_audience"


@pytest.mark.parametrize("ends", [NOW, NOW - 500, SMALL.expires_at + 1])
def test_mt_5_an_access_token_ends_later_and_on_a_whole_second(ends: int) -> None:
    with pytest.raises(ValueError, match="whole second"):
        replace(SMALL, expires_at=ends)


def test_an_access_token_is_verified_by_others_with_our_jwks(keys: Keys) -> None:
    now = time.time_ns() // 1_000_000
    token = access_token.issue(
        keys.signer("jwt"), replace(SMALL, issued_at=now, expires_at=expiry(now=now, ttl=300))
    )
    published = jwks(keys)
    found = joserfc_jwt.decode(token, KeySet.import_key_set(published), algorithms=["ES256"])
    assert (found.header["typ"], found.claims["client_id"]) == ("at+jwt", SPIFFE_ID)
    key = jwt.PyJWKSet.from_dict(published)[keys.signer("jwt").kid]
    claims = jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience=TOOL,
        issuer=EXTERNAL_URL,
        options={"require": sorted(REQUIRED)},
    )
    assert claims["sub"] == SPIFFE_ID
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key, algorithms=["ES256"], audience="https://other.example.org")
    with pytest.raises(BadSignatureError):
        joserfc_jwt.decode(token, ECKey.generate_key("P-256"), algorithms=["ES256"])


@pytest.mark.parametrize("alg", ["ES256", "ES384"])
def test_a_client_attestation_names_the_client_and_its_key(keys: Keys, alg: str) -> None:
    bound = device_key(alg)[1]
    signer = keys.signer("jwt")
    token = client_attestation.issue(signer, statement(), issuer=EXTERNAL_URL, key=bound, jti=JTI)
    assert part(token, 0) == {"typ": "oauth-client-attestation+jwt", "alg": "ES256", "kid": signer.kid}
    claims = part(token, 1)
    assert claims == {
        "iss": EXTERNAL_URL,
        "sub": SPIFFE_ID,
        "iat": NOW // 1000,
        "exp": NOW // 1000 + 600,
        "jti": JTI,
        "cnf": {"jwk": {**bound.jwk, "alg": alg}},
        CLAIM: BASIS.claim(),
    }
    # The bound key is a public one, and read again as the key that it is.
    assert read_jwk(claims["cnf"]["jwk"]).thumbprint == bound.thumbprint


def test_a_client_attestation_is_verified_by_others_with_our_jwks(keys: Keys) -> None:
    now = time.time_ns() // 1_000_000
    said = statement(issued_at=now, expires_at=expiry(now=now, ttl=600))
    token = client_attestation.issue(
        keys.signer("jwt"), said, issuer=EXTERNAL_URL, key=device_key()[1], jti=JTI
    )
    found = joserfc_jwt.decode(token, KeySet.import_key_set(jwks(keys)), algorithms=["ES256"])
    assert found.claims["sub"] == SPIFFE_ID


def test_mt_3_no_client_attestation_is_bound_to_a_key_of_ours(keys: Keys) -> None:
    signer = keys.signer("jwt")
    own = from_public_key(signer.public, alg=signer.alg)
    with pytest.raises(EvidenceError) as caught:
        client_attestation.issue(signer, statement(), issuer=EXTERNAL_URL, key=own, jti=JTI)
    assert caught.value.reason == "key_reuse"


def test_mt_8_kinds_of_tokens_that_share_a_key_differ_in_type() -> None:
    types = {access_token.TYP, client_attestation.TYP, wit.TYP, "JWT", "eat+jwt"}
    assert len(types) == 5
