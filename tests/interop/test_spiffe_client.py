"""Do the SVIDs that authenticate an OAuth client hold for the `spiffe` package, which knows nothing of us?"""

import json
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle
from spiffe.bundle.x509_bundle.x509_bundle import X509Bundle
from spiffe.spiffe_id.spiffe_id import TrustDomain
from spiffe.svid.errors import JwtSvidError, X509SvidError
from spiffe.svid.jwt_svid import JwtSvid
from spiffe.svid.x509_svid import X509Svid

from tests.interop.parties import TOOLS, Parties

SVID_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


def bundle(parties: Parties) -> JwtBundle:
    """The trust domain's keys for JWT-SVIDs: the package's JWT bundle is a JWK Set of those alone."""
    answer = requests.get(
        f"{parties.issuer}/.well-known/spiffe/bundle", verify=str(parties.authority), timeout=20
    )
    keys = [key for key in answer.json()["keys"] if key["use"] == "jwt-svid"]
    return JwtBundle.parse(TrustDomain("example.org"), json.dumps({"keys": keys}).encode())


def ask(parties: Parties, token: str) -> Any:
    form = {
        "grant_type": "client_credentials",
        "resource": TOOLS,
        "client_assertion_type": SVID_ASSERTION,
        "client_assertion": token,
    }
    return requests.post(
        f"{parties.issuer}/oauth/token", data=form, verify=str(parties.authority), timeout=20
    )


def courier(parties: Parties, name: str, audience: str) -> str:
    made = parties.attest(name, "courier", "--format", "jwt-svid", "--audience", audience)
    return made.text("jwt")


def is_issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_a_jwt_svid_that_it_accepts_for_the_issuer_authenticates_its_agent(parties: Parties) -> None:
    token = courier(parties, "courier", parties.issuer)
    svid = JwtSvid.parse_and_validate(token, bundle(parties), {parties.issuer})
    answer = ask(parties, svid.token)
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "Bearer"
    with pytest.raises(JwtSvidError):
        JwtSvid.parse_and_validate(token, bundle(parties), {TOOLS})


def test_one_for_somebody_else_authenticates_nobody_here(parties: Parties) -> None:
    token = courier(parties, "courier-for-tools", TOOLS)
    assert JwtSvid.parse_and_validate(token, bundle(parties), {TOOLS}).token == token
    answer = ask(parties, token)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_the_certificate_by_which_an_agent_connects_is_an_x509_svid_for_it(parties: Parties) -> None:
    credentials = parties.planner
    chain, key = (credentials.path(one).read_bytes() for one in ("svid.pem", "key.pem"))
    svid = X509Svid.parse(chain, key)
    assert str(svid.spiffe_id) == credentials.client_id
    published = X509Bundle.parse(TrustDomain("example.org"), (credentials.folder / "bundle.pem").read_bytes())
    assert any(is_issued_by(svid.cert_chain[-1], root) for root in published.x509_authorities)
    root = next(iter(published.x509_authorities)).public_bytes(Encoding.PEM)
    with pytest.raises(X509SvidError):
        X509Svid.parse(root, key)
