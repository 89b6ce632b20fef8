"""Does a Flask view see requests of attested agents only?"""

from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from attestd.resource.caller import Request
from attestd.resource.flask_guard import flask_guard, peer_certificate, serve_metadata
from attestd.resource.guard import Guard
from tests.attestd.resource.issuer import AGENT, AUDIENCE, Agent, Issuer, digest

CERTIFICATE = b"the DER of a certificate"


class Socket:
    """What gunicorn puts into the WSGI environment."""

    def getpeercert(self, binary_form: bool) -> bytes | None:
        return CERTIFICATE if binary_form else None


def client_of(guard: Guard) -> FlaskClient:
    app = flask.Flask("ledger")
    serve_metadata(app, guard)

    @app.get("/ledger")
    @flask_guard(guard, "ledger.read")
    def ledger() -> str:
        return str(flask.g.caller.agent)

    @app.get("/a b/<name>")
    @flask_guard(guard)
    def named(name: str) -> str:
        return name

    return app.test_client()


@pytest.fixture
def client(guard: Guard) -> FlaskClient:
    return client_of(guard)


def get(client: FlaskClient, request: Request, **members: Any) -> Any:
    return client.get(request.path, headers=list(request.headers), **members)


def test_the_view_gets_the_caller(issuer: Issuer, agent: Agent, client: FlaskClient) -> None:
    answer = get(client, agent.request(issuer.token(agent)))
    assert (answer.status_code, answer.text) == (200, AGENT)


def test_nobody_else_reaches_the_view(issuer: Issuer, agent: Agent, client: FlaskClient) -> None:
    anonymous = client.get("/ledger")
    assert (anonymous.status_code, (anonymous.json or {})["code"]) == (401, "unauthenticated")
    assert anonymous.content_type == "application/problem+json"
    assert anonymous.headers["WWW-Authenticate"].startswith('DPoP scope="ledger.read"')
    request = agent.request(issuer.token(agent, scope="other"))
    assert get(client, request).status_code == 403
    request = agent.request(issuer.token(agent))
    assert get(client, request).status_code == 200
    assert get(client, request).status_code == 401


def test_the_path_is_what_flask_routed(issuer: Issuer, agent: Agent, client: FlaskClient) -> None:
    token = issuer.token(agent)
    proof = agent.proof(token, htu=f"{AUDIENCE}/a%20b/%C3%A9%25?page=1")
    request = agent.request(token, proof, path="/a%20b/%C3%A9%25?page=1")
    answer = get(client, request)
    assert (answer.status_code, answer.text) == (200, "é%")


def test_every_answer_brings_the_next_nonce(issuer: Issuer, agent: Agent) -> None:
    client = client_of(issuer.guard(nonce_key=bytes(32)))
    token = issuer.token(agent)
    nonce = get(client, agent.request(token)).headers["DPoP-Nonce"]
    answer = get(client, agent.request(token, agent.proof(token, nonce=nonce)))
    assert answer.status_code == 200
    again = agent.request(token, agent.proof(token, nonce=answer.headers["DPoP-Nonce"]))
    assert get(client, again).status_code == 200


def test_the_metadata_is_for_everybody(client: FlaskClient, guard: Guard) -> None:
    assert client.get("/.well-known/oauth-protected-resource").json == guard.metadata()


def test_oa_5_a_certificate_comes_from_gunicorns_socket_alone(issuer: Issuer, agent: Agent) -> None:
    client = client_of(issuer.guard(certificates=True))
    token = issuer.token(agent, cnf={"x5t#S256": digest(CERTIFICATE.decode())})
    headers = [("Authorization", f"Bearer {token}")]
    socket = {"gunicorn.socket": Socket()}
    assert client.get("/ledger", headers=headers, environ_overrides=socket).status_code == 200
    assert client.get("/ledger", headers=headers).status_code == 401
    forged = [*headers, ("X-SSL-Client-Cert", CERTIFICATE.decode()), ("gunicorn.socket", "x")]
    assert client.get("/ledger", headers=forged).status_code == 401
    assert peer_certificate({"gunicorn.socket": object()}) is None
