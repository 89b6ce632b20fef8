"""Do others verify our tokens, and is none of them taken for another?"""

import json
import time
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey, KeySet
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle
from spiffe.spiffe_id.spiffe_id import TrustDomain
from spiffe.svid.errors import InvalidTokenError, JwtSvidError
from spiffe.svid.jwt_svid import JwtSvid

from attestd.issue import ear, jwt_svid, wit
from attestd.issue.discovery import jwks, spiffe_bundle
from attestd.issue.jwk import from_public_key
from attestd.issue.keys import Keys
from attestd.issue.lifetime import expiry
from attestd.issue.statement import CLAIM, Basis, Statement, token_id
from tests.attestd.issue.material import (
    EXTERNAL_URL,
    NOW,
    SPIFFE_ID,
    TRUST_DOMAIN,
    device_key,
    new_keys,
    statement,
)
from tpm.errors import EvidenceError, PolicyError, StructureError

TOOL = "https://tools.example.org"
JTI = token_id(bytes(range(16)))
VERIFIER = ear.Verifier(EXTERNAL_URL, "attestd", "attestd-tpm 0.1.0")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return new_keys(tmp_path_factory.mktemp("tokens") / "keys")


def alive() -> Statement:
    """A statement for now, because the judges look at the clock."""
    now = time.time_ns() // 1_000_000
    return statement(issued_at=now, expires_at=expiry(now=now, ttl=600))


def new_wit(keys: Keys, said: Statement) -> str:
    return wit.issue(keys.signer("wit"), said, key=device_key()[1], jti=JTI)


def new_jwt_svid(keys: Keys, said: Statement) -> str:
    return jwt_svid.issue(keys.signer("jwt"), said, issuer=EXTERNAL_URL, audience=[TOOL], jti=JTI)


def new_ear(keys: Keys, said: Statement) -> str:
    facts = ear.Facts(frozenset({0, 2, 4, 7}), keys_in_tpm=True)
    result = ear.Result("ab" * 32, bytes(range(32)), said.basis, "cd" * 32, facts)
    return ear.issue(
        keys.signer("ear"), result, verifier=VERIFIER, issued_at=said.issued_at, expires_at=said.expires_at
    )


def header(token: str) -> dict[str, Any]:
    return part(token, 0)


def part(token: str, index: int) -> dict[str, Any]:
    text = token.split(".")[index]
    value: dict[str, Any] = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return value


def token_keys(keys: Keys, use: str) -> dict[str, Any]:
    """That part of the bundle which is for tokens of one kind: JWK sets as their verifiers read them."""
    return {"keys": [entry for entry in spiffe_bundle(keys)["keys"] if entry["use"] == use]}


def by_spiffe(keys: Keys, token: str, audience: str = TOOL) -> JwtSvid:
    part_of_bundle = json.dumps(token_keys(keys, "jwt-svid")).encode()
    bundle = JwtBundle.parse(TrustDomain(TRUST_DOMAIN), part_of_bundle)
    return JwtSvid.parse_and_validate(token, bundle, {audience})


def by_joserfc(key_set: dict[str, Any], token: str) -> dict[str, Any]:
    entries = [{name: value for name, value in key.items() if name != "use"} for key in key_set["keys"]]
    key = KeySet.import_key_set({"keys": entries})
    return dict(joserfc_jwt.decode(token, key, algorithms=["ES256"]).claims)


def test_the_spiffe_package_accepts_a_jwt_svid(keys: Keys) -> None:
    said = alive()
    token = new_jwt_svid(keys, said)
    svid = by_spiffe(keys, token)
    assert (str(svid.spiffe_id), svid.audience, svid.expiry) == (SPIFFE_ID, {TOOL}, said.expires_at // 1000)
    assert header(token) == {"alg": "ES256", "kid": keys.signer("jwt").kid, "typ": "JWT"}
    assert part(token, 1) == {
        "iss": EXTERNAL_URL,
        "sub": SPIFFE_ID,
        "aud": [TOOL],
        "iat": said.issued_at // 1000,
        "exp": said.expires_at // 1000,
        "jti": JTI,
        CLAIM: {"assurance": "ek_verified", "attestation": "attestation-1", "policy": "edge-gateway@3"},
    }


@pytest.mark.parametrize("audience", ["https://other.example.org", TOOL + "/", ""])
def test_a_jwt_svid_is_for_its_audience(keys: Keys, audience: str) -> None:
    with pytest.raises((InvalidTokenError, JwtSvidError)):
        by_spiffe(keys, new_jwt_svid(keys, alive()), audience)


@pytest.mark.parametrize("audience", [[], [""], [TOOL, ""]])
def test_a_jwt_svid_for_nobody_is_not_made(keys: Keys, audience: list[str]) -> None:
    with pytest.raises(StructureError) as caught:
        jwt_svid.issue(keys.signer("jwt"), alive(), issuer=EXTERNAL_URL, audience=audience, jti=JTI)
    assert caught.value.reason == "no_audience"


def test_joserfc_verifies_a_wit(keys: Keys) -> None:
    said = alive()
    _, key = device_key()
    token = wit.issue(keys.signer("wit"), said, key=key, jti=JTI)
    assert header(token) == {"alg": "ES256", "kid": keys.signer("wit").kid, "typ": "wit+jwt"}
    assert by_joserfc(token_keys(keys, "wit-svid"), token) == {
        "iss": "spiffe://example.org",
        "sub": SPIFFE_ID,
        "iat": said.issued_at // 1000,
        "exp": said.expires_at // 1000,
        "jti": JTI,
        "cnf": {"jwk": {**key.jwk, "alg": "ES256"}},
        CLAIM: said.basis.claim(),
    }


def test_a_proof_by_the_bound_key_verifies_with_the_key_in_the_wit(keys: Keys) -> None:
    private_key, key = device_key()
    token = wit.issue(keys.signer("wit"), alive(), key=key, jti=JTI)
    pem_key = ECKey.import_key(private_key)
    proof = joserfc_jwt.encode({"alg": "ES256", "typ": "wpt+jwt"}, {"aud": TOOL}, pem_key)
    bound = ECKey.import_key(part(token, 1)["cnf"]["jwk"])
    assert joserfc_jwt.decode(proof, bound).claims["aud"] == TOOL


def test_a_wits_keys_are_in_the_bundle_and_not_where_discovery_leads(keys: Keys) -> None:
    kid = keys.signer("wit").kid
    assert kid in [entry.get("kid") for entry in spiffe_bundle(keys)["keys"]]
    assert kid not in [entry["kid"] for entry in jwks(keys)["keys"]]
    assert not part(new_wit(keys, alive()), 1)["iss"].startswith("http")


def test_mt_3_a_wit_is_not_bound_to_the_key_that_signs_it(keys: Keys) -> None:
    own = from_public_key(keys.signer("wit").public, alg="ES256")
    with pytest.raises(EvidenceError) as caught:
        wit.issue(keys.signer("wit"), alive(), key=own, jti=JTI)
    assert caught.value.reason == "key_reuse"


def test_joserfc_verifies_an_attestation_result(keys: Keys) -> None:
    said = alive()
    token = new_ear(keys, said)
    assert header(token) == {"alg": "ES256", "kid": keys.signer("ear").kid, "typ": "eat+jwt"}
    assert by_joserfc(jwks(keys), token) == {
        "iss": EXTERNAL_URL,
        "sub": "ab" * 32,
        "iat": said.issued_at // 1000,
        "exp": said.expires_at // 1000,
        "jti": "attestation-1",
        "eat_profile": "tag:ietf.org,2026:rats/ear#03",
        "eat_nonce": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "ear_verifier_id": {"developer": "attestd", "build": "attestd-tpm 0.1.0"},
        "submods": {
            "tpm": {
                "ear_status": "affirming",
                "ear_trustworthiness_vector": {
                    "instance-identity": 2,
                    "hardware": 2,
                    "configuration": 2,
                    "executables": 3,
                    "storage-opaque": 2,
                },
                "ear_appraisal_policy_ids": ["edge-gateway@3", "sha256:" + "cd" * 32],
            }
        },
        CLAIM: said.basis.claim(),
    }


def test_an_attestation_result_lives(keys: Keys) -> None:
    said = statement()
    result = ear.Result("ab" * 32, bytes(32), said.basis, "cd" * 32, ear.Facts(frozenset(), False))
    for end in (NOW, NOW - 1000, NOW - NOW % 1000):
        with pytest.raises(PolicyError) as caught:
            ear.issue(keys.signer("ear"), result, verifier=VERIFIER, issued_at=NOW, expires_at=end)
        assert caught.value.reason == "ttl"


MAKERS = {"wit": new_wit, "jwt": new_jwt_svid, "ear": new_ear}
TYPES = {"wit": "wit+jwt", "jwt": "JWT", "ear": "eat+jwt"}


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("wanted", MAKERS)
def test_mt_8_a_token_passes_for_its_own_kind_only(keys: Keys, made: str, wanted: str) -> None:
    token = MAKERS[made](keys, alive())
    signer = keys.signer(wanted)
    key_set = {"keys": [{**signer.jwk, "kid": signer.kid}]}
    assert (header(token)["typ"] == TYPES[wanted]) == (made == wanted)
    if made == wanted:
        assert by_joserfc(key_set, token)["exp"]
        return
    # A key has one use, so even who forgets to look at `typ` finds no key.
    with pytest.raises(Exception, match=r"(?i)key|signature"):
        by_joserfc(key_set, token)


def test_mt_8_no_wit_or_attestation_result_is_a_jwt_svid(keys: Keys) -> None:
    assert by_spiffe(keys, new_jwt_svid(keys, alive()))
    for maker in (new_wit, new_ear):
        with pytest.raises((InvalidTokenError, JwtSvidError)):
            by_spiffe(keys, maker(keys, alive()))


def test_a_changed_token_is_refused_by_others(keys: Keys) -> None:
    token = new_wit(keys, alive())
    head, body, signature = token.split(".")
    other = new_wit(keys, alive()).split(".")[1]
    assert by_joserfc(token_keys(keys, "wit-svid"), token)
    for forged in (f"{head}.{other}.{signature}", f"{head}.{body}.{signature[:-4]}AAAA"):
        with pytest.raises(Exception, match=r"(?i)signature"):
            by_joserfc(token_keys(keys, "wit-svid"), forged)


@pytest.mark.parametrize("assurance", ["ek_verified", "allow_listed", "first_use", "emulated"])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_token_carries_the_assurance(keys: Keys, kind: str, assurance: Any) -> None:
    now = alive()
    basis = Basis("attestation-1", "edge-gateway@3", assurance)
    said = Statement(now.spiffe_id, basis, now.issued_at, now.expires_at)
    assert part(MAKERS[kind](keys, said), 1)[CLAIM]["assurance"] == assurance


@pytest.mark.parametrize(
    "changes",
    [
        {"spiffe_id": "spiffe://example.org"},
        {"spiffe_id": "spiffe://example.org/agent/../admin"},
        {"expires_at": NOW - NOW % 1000},
        {"expires_at": NOW + 60_000},
        {"expires_at": 0},
    ],
)
def test_a_statement_that_cannot_be_true_is_not_made(changes: dict[str, Any]) -> None:
    assert statement().exp > statement().iat
    with pytest.raises(ValueError, match=r"SPIFFE|ends after"):
        statement(**changes)


@pytest.mark.parametrize(
    "parts", [("", "p@1"), ("a", "p"), ("a", "p@"), ("a", "p@1@2"), ("a", "@1"), ("a", "p @1")]
)
def test_a_basis_names_its_attestation_and_policy(parts: tuple[str, str]) -> None:
    Basis("a", "p@1", "first_use")
    with pytest.raises(ValueError, match="basis"):
        Basis(*parts, "first_use")
    with pytest.raises(ValueError, match="basis"):
        Basis("a", "p@1", "verified")  # type: ignore[arg-type]


def test_a_tokens_id_is_random_enough() -> None:
    assert len(JTI) == 22
    with pytest.raises(ValueError, match="16 random bytes"):
        token_id(bytes(15))
