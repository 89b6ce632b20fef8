"""Does a second JOSE library, joserfc, read what the service signs, and is what it signs taken?"""

import secrets
from typing import Any

import pytest
import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from tests.interop.keys import Signer, hashed
from tests.interop.parties import TOOLS, Parties

FORM = {"grant_type": "client_credentials", "resource": TOOLS, "scope": "plan.read"}


def post(parties: Parties, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Any:
    return requests.post(
        parties.issuer + path, data=form, headers=headers, verify=str(parties.authority), timeout=20
    )


def fresh(parties: Parties) -> str:
    """A challenge, which is a DPoP nonce, too."""
    answer = requests.post(f"{parties.issuer}/oauth/challenge", verify=str(parties.authority), timeout=20)
    return str(answer.json()["attestation_challenge"])


def keys(parties: Parties) -> KeySet:
    answer = requests.get(
        f"{parties.issuer}/.well-known/jwks.json", verify=str(parties.authority), timeout=20
    )
    return KeySet.import_key_set(answer.json())


def read(parties: Parties, token: str, typ: str, **demanded: Any) -> dict[str, Any]:
    """The claims of a token of the service, of this type, with these values."""
    found = jwt.decode(token, keys(parties), algorithms=["ES256"])
    assert found.header["typ"] == typ
    demands = {name: {"essential": True, "value": value} for name, value in demanded.items()}
    jwt.JWTClaimsRegistry(exp={"essential": True}, **demands).validate(found.claims)
    return dict(found.claims)


def by_attestation(parties: Parties, **changed: str) -> Any:
    """A token request with the client attestation and the one proof of the combined form."""
    signer = Signer(parties.planner.key)
    proof = signer.dpop(f"{parties.issuer}/oauth/token", fresh(parties))
    headers = {"OAuth-Client-Attestation": parties.planner.text("attestation.jwt"), "DPoP": proof}
    return post(parties, "/oauth/token", FORM, {**headers, **changed})


def test_it_reads_the_client_attestation_with_the_published_keys(parties: Parties) -> None:
    token = parties.planner.text("attestation.jwt")
    claims = read(
        parties, token, "oauth-client-attestation+jwt", iss=parties.issuer, sub=parties.planner.client_id
    )
    own = Signer(parties.planner.key).key.as_dict(private=False)
    assert {name: claims["cnf"]["jwk"][name] for name in ("kty", "crv", "x", "y")} == {
        name: own[name] for name in ("kty", "crv", "x", "y")
    }
    head, body, signature = token.split(".")
    with pytest.raises(JoseError):
        read(parties, f"{head}.{body}.{'A' * len(signature)}", "oauth-client-attestation+jwt")
    with pytest.raises(JoseError):
        read(parties, token, "oauth-client-attestation+jwt", iss="https://login.example.org")


def test_its_combined_proof_makes_a_token_that_it_reads(parties: Parties) -> None:
    answer = by_attestation(parties)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    claims = read(parties, token, "at+jwt", iss=parties.issuer, aud=TOOLS, sub=parties.planner.client_id)
    assert claims["cnf"] == {"jkt": Signer(parties.planner.key).thumbprint}
    assert extract_compact(token.encode()).headers().keys() == {"alg", "typ", "kid"}


def test_its_separate_proof_authenticates_the_agent_too(parties: Parties) -> None:
    signer = Signer(parties.planner.key)
    challenge = fresh(parties)
    pop = signer.attestation_pop(parties.issuer, challenge)
    proof = signer.dpop(f"{parties.issuer}/oauth/token", fresh(parties))
    answer = by_attestation(parties, **{"OAuth-Client-Attestation-PoP": pop, "DPoP": proof})
    assert answer.status_code == 200, answer.text
    wrong = signer.attestation_pop("https://login.example.org", challenge)
    proof = signer.dpop(f"{parties.issuer}/oauth/token", fresh(parties))
    answer = by_attestation(parties, **{"OAuth-Client-Attestation-PoP": wrong, "DPoP": proof})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("proof", "error"),
    [
        (lambda own, other, url, nonce: own.dpop(url, None), "use_attestation_challenge"),
        (lambda own, other, url, nonce: own.dpop(url, secrets.token_urlsafe(24)), "invalid_dpop_proof"),
        (lambda own, other, url, nonce: own.dpop(url + "x", nonce), "invalid_dpop_proof"),
        (lambda own, other, url, nonce: own.dpop(url, nonce, method="GET"), "invalid_dpop_proof"),
        (lambda own, other, url, nonce: other.dpop(url, nonce), "invalid_dpop_proof"),
    ],
    ids=["without a nonce", "a made-up nonce", "another address", "another method", "another key"],
)
def test_a_combined_proof_that_is_not_for_this_request_is_refused(
    parties: Parties, proof: Any, error: str
) -> None:
    own, other = Signer(parties.planner.key), Signer(parties.tools_key)
    made = proof(own, other, f"{parties.issuer}/oauth/token", fresh(parties))
    answer = by_attestation(parties, DPoP=made)
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] == error
    assert by_attestation(parties).status_code == 200


def test_introspection_says_what_the_token_says(parties: Parties) -> None:
    token = by_attestation(parties).json()["access_token"]
    tools = Signer(parties.tools_key)

    def ask(audience: str) -> Any:
        form = {
            "token": token,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": tools.assertion(TOOLS, audience),
        }
        return post(parties, "/oauth/introspect", form)

    claims = read(parties, token, "at+jwt")
    assert ask(parties.issuer).json() == {"active": True, "token_type": "DPoP", **claims}
    refused = ask(f"{parties.issuer}/oauth/introspect")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def by_wit(parties: Parties, **changed: Any) -> Any:
    """A token request with the WIT, its proof, and a DPoP proof that binds the token."""
    signer, wit = Signer(parties.planner.key), parties.planner.text("wit.jwt")
    url = f"{parties.issuer}/oauth/token"
    headers = {
        "Workload-Identity-Token": wit,
        "Workload-Proof-Token": signer.wpt(url, wit, **changed),
        "DPoP": signer.dpop(url, fresh(parties)),
    }
    return post(parties, "/oauth/token", FORM, headers)


def test_its_workload_proof_authenticates_the_agent_of_a_wit(parties: Parties) -> None:
    answer = by_wit(parties)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    read(parties, token, "at+jwt", client_id=parties.planner.client_id)


@pytest.mark.parametrize(
    "changed",
    [
        {"wth": hashed("another")},
        {"aud": "https://tools.example.org/run"},
        {"exp": 1},
        {"ath": hashed("none")},
    ],
    ids=["another token", "another address", "over", "a token that is not there"],
)
def test_a_workload_proof_for_anything_else_authenticates_nobody(
    parties: Parties, changed: dict[str, Any]
) -> None:
    answer = by_wit(parties, **changed)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")
    assert by_wit(parties).status_code == 200


def test_its_assertion_is_a_grant_of_its_own_and_good_once(parties: Parties) -> None:
    signer, url = Signer(parties.planner.key), f"{parties.issuer}/oauth/token"
    assertion = signer.assertion(parties.planner.client_id, parties.issuer, typ="JWT")
    grant = {**FORM, "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}

    def ask(made: str) -> Any:
        headers = {"DPoP": signer.dpop(url, fresh(parties))}
        return post(parties, "/oauth/token", {**grant, "assertion": made}, headers)

    answer = ask(assertion)
    assert answer.status_code == 200, answer.text
    read(parties, answer.json()["access_token"], "at+jwt", sub=parties.planner.client_id)
    again = ask(assertion)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    client = ask(signer.assertion(parties.planner.client_id, parties.issuer))
    assert (client.status_code, client.json()["error"]) == (400, "invalid_grant")
