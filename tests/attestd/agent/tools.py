"""A service with a resource and an OpenID Provider beside it: whom agents call, and on whose behalf."""

import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flask
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.serving import make_server

from attestd.agent.machine import Machine
from attestd.resource.credentials import ByKey
from attestd.resource.flask_guard import flask_guard
from attestd.resource.guard import Guard
from attestd.resource.new_key import new_key
from tests.serving import Agent, Serving, free_port

LOGIN = "https://login.example.org"
POLICY = f"""
name = "callers"
disclose = "findings"
allow_unmeasured = [0, 7]
[pcrs]
0 = ["sha256:{"00" * 32}"]
7 = ["sha256:{"00" * 32}"]
[[grant]]
agent = "planner"
formats = ["wit-svid", "client-attestation"]
ttl = "10m"
audiences = ["AUDIENCE", "https://elsewhere.example.org"]
scopes = ["ledger.read", "ledger.write"]
delegation = {{ issuers = ["{LOGIN}", "ISSUER"], depth = 2 }}
[[grant]]
agent = "helper"
formats = ["client-attestation"]
ttl = "40s"
audiences = ["AUDIENCE"]
scopes = ["ledger.read"]
delegation = {{ issuers = ["{LOGIN}", "ISSUER"], depth = 2 }}
"""
"""Accepts a software TPM that has measured nothing; the helper's credentials end soon."""


@dataclass
class Login:
    """The users' OpenID Provider: its key, and tokens under it."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def keys(self) -> dict[str, Any]:
        """Its JWK Set."""
        point = self.key.public_key().public_numbers()
        x, y = (
            urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode() for value in (point.x, point.y)
        )
        return {
            "keys": [
                {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "users", "x": x, "y": y}
            ]
        }

    def token(self, **changed: Any) -> str:
        """An ID token of alice for the service, but for these claims."""
        now = int(time.time())
        claims = {"iss": LOGIN, "sub": "alice", "aud": "attestd", "iat": now, "exp": now + 600}
        return jwt.encode(claims | changed, self.key, algorithm="ES256", headers={"kid": "users"})


@dataclass
class Tools:
    """The running resource, which wants a nonce in each proof. `calls` are those that it let through."""

    service: Serving
    login: Login
    url: str
    key_file: Path
    calls: list[tuple[str, str, bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def audience(self) -> str:
        return self.url

    def machine(self, agent: Agent) -> Machine:
        """The agent's machine, enrolled, as a program on it sees it."""
        return Machine.enrolled(agent.tpm.tcti, agent.state)

    def attested(self) -> int:
        """How many attestations were accepted."""
        return len(self.service.listed("audit", "show", "--event", "attest", "--decision", "accepted"))

    def app(self) -> flask.Flask:
        app, calls, statuses = flask.Flask("tools"), self.calls, self.statuses
        guard = Guard(
            issuer=self.service.url,
            audience=self.audience,
            introspection=ByKey(self.audience, self.key_file),
            check_every=0,
            nonce_key=secrets.token_bytes(32),
        )

        @app.route("/ledger", methods=["GET", "POST"])
        @flask_guard(guard, "ledger.read")
        def ledger() -> str:
            request = flask.request
            calls.append((request.method, request.query_string.decode(), request.get_data()))
            caller = flask.g.caller
            return f"{caller.user or 'nobody'} through {caller.agent}"

        @app.route("/moved")
        def moved() -> flask.typing.ResponseReturnValue:
            return flask.redirect(flask.request.args["to"])

        @app.after_request
        def note(response: flask.Response) -> flask.Response:
            statuses.append(response.status_code)
            return response

        return app


@contextmanager
def calling(directory: Path) -> Iterator[Tools]:
    """Service and resource, until the context ends."""
    directory.mkdir(parents=True, exist_ok=True)
    port, login = free_port(), Login()
    url = f"http://127.0.0.1:{port}"
    service = Serving(directory / "srv", policies=())
    policy = directory / "callers.toml"
    policy.write_text(POLICY.replace("AUDIENCE", url).replace("ISSUER", service.url))
    service.operate("policy", "apply", str(policy))
    _introduce(service.directory, login, directory / "tools.pem", audience=url)
    tools = Tools(service, login, url, directory / "tools.pem")
    with service, _serving(tools, port):
        yield tools


def _introduce(folder: Path, login: Login, key_file: Path, *, audience: str) -> None:
    (folder / "keys" / "tools.jwks").write_text(new_key(key_file))
    (folder / "keys" / "login.jwks").write_text(json.dumps(login.keys()))
    with (folder / "attestd.toml").open("a") as file:
        file.write(f'[[subject_issuer]]\nissuer = "{LOGIN}"\naudience = "attestd"\n')
        file.write('jwks = "file:keys/login.jwks"\n')
        file.write(f'[[resource]]\naudience = "{audience}"\njwks = "file:keys/tools.jwks"\n')


@contextmanager
def _serving(tools: Tools, port: int) -> Iterator[None]:
    server = make_server("127.0.0.1", port, tools.app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
