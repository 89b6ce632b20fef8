"""Does Authlib work with the service: as an agent that shows its certificate, or signs an assertion, and as a
resource?"""

import hashlib
import secrets
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc.jwk import ECKey

from tests.interop.keys import Signer, b64url
from tests.interop.parties import LEDGER, TOOLS, Credentials, Parties


def trusting(parties: Parties, session: OAuth2Session) -> OAuth2Session:
    """It believes the service's certificate, whatever the environment says of others."""
    session.trust_env, session.verify, session.default_timeout = False, str(parties.authority), 20
    return session


def with_certificate(parties: Parties, credentials: Credentials, *, key: Path | None = None) -> OAuth2Session:
    """A session that shows the agent's X.509-SVID; `key` replaces the file of its key."""
    session = trusting(parties, OAuth2Session(credentials.client_id, token_endpoint_auth_method="none"))
    session.cert = (str(credentials.path("svid.pem")), str(key or credentials.path("key.pem")))
    return session


def with_assertion(parties: Parties, client_id: str, pem: str, **claims: Any) -> OAuth2Session:
    """A session that signs assertions for the issuer. Left alone, Authlib's live an hour, which is far more
    than is taken."""
    key = ECKey.import_key(pem)
    session = trusting(parties, OAuth2Session(client_id, key, token_endpoint_auth_method=PrivateKeyJWT.name))
    made = {"jti": secrets.token_urlsafe(16), "exp": int(time.time()) + 60, **claims}
    session.register_client_auth_method(PrivateKeyJWT(parties.issuer, claims=made, alg="ES256"))
    return session


def fetch(session: OAuth2Session, url: str, **parameters: Any) -> dict[str, Any]:
    given = {"grant_type": "client_credentials", "resource": TOOLS, **parameters}
    return dict(session.fetch_token(f"{url}/oauth/token", **given))


def introspect(parties: Parties, token: str, **claims: Any) -> dict[str, Any]:
    """As the resource TOOLS."""
    session = with_assertion(parties, TOOLS, parties.tools_key, **claims)
    answer = session.introspect_token(f"{parties.issuer}/oauth/introspect", token=token)
    told: dict[str, Any] = answer.json()
    return {"status": answer.status_code, **told}


# --- by certificate -----------------------------------------------------------------------------------------


def test_an_agent_that_shows_its_certificate_gets_a_token_bound_to_it(parties: Parties) -> None:
    granted = fetch(with_certificate(parties, parties.planner), parties.mtls, scope="plan.read")
    assert (granted["token_type"], granted["scope"]) == ("Bearer", "plan.read")
    told = introspect(parties, granted["access_token"])
    (own, *_) = x509.load_pem_x509_certificates(parties.planner.path("svid.pem").read_bytes())
    digest = hashlib.sha256(own.public_bytes(Encoding.DER)).digest()
    assert (told["active"], told["cnf"]) == (True, {"x5t#S256": b64url(digest)})


def test_it_asks_for_what_it_was_granted_and_as_itself(parties: Parties) -> None:
    with pytest.raises(OAuthError, match="invalid_scope"):
        fetch(with_certificate(parties, parties.planner), parties.mtls, scope="plan.admin")
    session = with_certificate(parties, parties.planner)
    session.client_id = parties.planner.client_id.replace("planner", "courier")
    with pytest.raises(OAuthError, match="invalid_client"):
        fetch(session, parties.mtls)
    assert fetch(with_certificate(parties, parties.planner), parties.mtls)["access_token"]


def test_a_certificate_without_its_key_or_of_another_authority_opens_no_connection(parties: Parties) -> None:
    other = parties.planner_anew("another")
    strange = with_certificate(parties, parties.planner, key=other.path("key.pem"))
    with pytest.raises((requests.exceptions.SSLError, OSError)):
        fetch(strange, parties.mtls)
    bare = trusting(parties, OAuth2Session(parties.planner.client_id, token_endpoint_auth_method="none"))
    with pytest.raises((requests.exceptions.ConnectionError, OSError)):
        fetch(bare, parties.mtls)
    assert fetch(with_certificate(parties, other), parties.mtls)["access_token"]


# --- by assertion -------------------------------------------------------------------------------------------


def test_an_agent_that_signs_an_assertion_gets_a_token_bound_to_its_key(parties: Parties) -> None:
    signer, nonces = Signer(parties.planner.key), []

    def ask(nonce: str | None) -> dict[str, Any]:
        session = with_assertion(parties, parties.planner.client_id, parties.planner.key)
        session.register_compliance_hook("access_token_response", keep)
        proof = signer.dpop(f"{parties.issuer}/oauth/token", nonce)
        form = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        return fetch(session, parties.issuer, headers={**form, "DPoP": proof})

    def keep(answer: requests.Response) -> requests.Response:
        nonces.append(answer.headers["DPoP-Nonce"])
        return answer

    with pytest.raises(OAuthError, match="use_dpop_nonce"):
        ask(None)
    granted = ask(nonces[-1])
    assert granted["token_type"] == "DPoP"
    assert introspect(parties, granted["access_token"])["cnf"] == {"jkt": signer.thumbprint}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"aud": "https://login.example.org"}, id="for another server"),
        pytest.param({"aud": "BOTH"}, id="for another server, too"),
        pytest.param({"exp": 2**31 - 1}, id="for years"),
        pytest.param({"exp": 1}, id="long over"),
        pytest.param({"sub": "someone"}, id="about another"),
    ],
)
def test_an_assertion_that_says_anything_else_authenticates_nobody(
    parties: Parties, changed: dict[str, Any]
) -> None:
    both = [parties.issuer, "https://login.example.org"]
    said = {name: both if value == "BOTH" else value for name, value in changed.items()}
    with pytest.raises(OAuthError, match="invalid_client"):
        fetch(with_assertion(parties, parties.planner.client_id, parties.planner.key, **said), parties.issuer)
    told = introspect(parties, "none", **said)
    assert (told["status"], told["error"]) == (401, "invalid_client")
    assert introspect(parties, "none") == {"status": 200, "active": False}


def test_an_assertion_alone_gets_no_token_that_everybody_could_use(parties: Parties) -> None:
    with pytest.raises(OAuthError, match="invalid_dpop_proof"):
        fetch(with_assertion(parties, parties.planner.client_id, parties.planner.key), parties.issuer)


def test_a_resource_learns_of_tokens_for_itself_until_the_agent_revokes_them(parties: Parties) -> None:
    session = with_certificate(parties, parties.planner)
    own, another = (fetch(session, parties.mtls, resource=one)["access_token"] for one in (TOOLS, LEDGER))
    assert introspect(parties, own)["active"] is True
    assert introspect(parties, another) == {"status": 200, "active": False}
    assert session.revoke_token(f"{parties.mtls}/oauth/revoke", token=own).status_code == 200
    assert introspect(parties, own) == {"status": 200, "active": False}
