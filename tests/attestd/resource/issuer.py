"""An issuer of access tokens that really signs, publishes its keys and answers introspection over HTTP, and
agents that really prove. Tokens are put together by hand, so that each member can be a lie."""

import hashlib
import json
import secrets
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from attestd.resource.caller import Denied, Request
from attestd.resource.credentials import ByKey
from attestd.resource.guard import Guard
from attestd.resource.new_key import new_key as new_resource_key
from tests.attester import PrivateKey, b64url, jwk_of, jws_value, new_key

AUDIENCE = "https://tools.example.org"
AGENT = "spiffe://example.org/agent/planner/gateway-7"
GONE = object()
"""As the value of a member: leave the member out."""
BASIS = {"assurance": "ek_verified", "attestation": "attestation-1", "policy": "edge-gateway@3"}


def changed(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not GONE}


def compact(key: PrivateKey, header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes) -> str:
    """A compact JWS over exactly these members, or exactly these bytes."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signing_input = ".".join(b64url(part) for part in parts)
    return f"{signing_input}.{b64url(jws_value(key, signing_input.encode()))}"


def public(key: PrivateKey) -> dict[str, str]:
    return {name: value for name, value in jwk_of(key).items() if name != "alg"}


def thumbprint(key: PrivateKey) -> str:
    """RFC 7638."""
    return digest(json.dumps(public(key), sort_keys=True, separators=(",", ":")))


def digest(text: str, encoding: str = "utf-8") -> str:
    return b64url(hashlib.sha256(text.encode(encoding)).digest())


class Issuer:
    """What `urls` are answered with can be changed under a running guard."""

    def __init__(self, directory: Path) -> None:
        self.keys = {"k1": new_key("p256")}
        self.signing = "k1"
        self.ended: set[str] = set()
        self.says: dict[str, Any] = {}
        """Replaces members of the answer to introspection."""
        self.raw: bytes | None = None
        """Replaces the answer to introspection."""
        self.asked: list[str] = []
        self.fetched = 0
        self.delay = 0.0
        self.drip = 0.0
        """Seconds between the bytes of an answer."""
        self.status = 200
        self.resource_key = directory / "tools.pem"
        self._resource_keys = KeySet.import_key_set(json.loads(new_resource_key(self.resource_key)))
        self._used: set[str] = set()
        self._server: ThreadingHTTPServer | None = None
        self.open()
        self.url = f"http://127.0.0.1:{self.port}"

    # --- the server ---------------------------------------------------------------------------------------

    def open(self, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def jwks(self) -> bytes:
        self.fetched += 1
        keys = [{**jwk_of(key), "kid": kid, "use": "sig"} for kid, key in self.keys.items()]
        return json.dumps({"keys": keys}).encode()

    def introspect(self, form: Mapping[str, list[str]]) -> tuple[int, bytes]:
        """RFC 7662, as attestd has it: the assertion is verified and good for one request."""
        time.sleep(self.delay)
        try:
            found = joserfc_jwt.decode(form["client_assertion"][0], self._resource_keys, algorithms=["ES256"])
        except Exception:
            return 401, b'{"error": "invalid_client"}'
        claims = found.claims
        if (
            claims["aud"] != self.url
            or {claims["iss"], claims["sub"]} != {AUDIENCE}
            or claims["jti"] in self._used
            or not 0 < claims["exp"] - claims["iat"] <= 120
        ):
            return 401, b'{"error": "invalid_client"}'
        self._used.add(claims["jti"])
        if self.status != 200:
            return self.status, b"{}"
        token = form["token"][0]
        self.asked.append(token)
        said = json.loads(_unpadded(token.split(".")[1]))
        if said.get("jti") in self.ended:
            return 200, b'{"active": false}'
        return 200, self.raw or json.dumps({"active": True, **said, **self.says}).encode()

    # --- what it signs --------------------------------------------------------------------------------------

    def token(self, agent: "Agent", *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        said = {
            "iss": self.url,
            "sub": AGENT,
            "client_id": AGENT,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_urlsafe(16),
            "scope": "ledger.read",
            "cnf": {"jkt": thumbprint(agent.key)},
            "urn:attestd:attestation": BASIS,
        }
        shown = changed({"typ": "at+jwt", "alg": "ES256", "kid": self.signing}, header or {})
        return compact(self.keys[self.signing], shown, changed(said, claims))

    def guard(self, **settings: Any) -> Guard:
        given: dict[str, Any] = {
            "issuer": self.url,
            "audience": AUDIENCE,
            "introspection": ByKey(AUDIENCE, self.resource_key),
        }
        return Guard(**given | settings)


@dataclass(frozen=True)
class Agent:
    """Whoever holds a key."""

    key: PrivateKey = field(default_factory=lambda: new_key("p256"))

    def proof(self, token: str, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        said = {
            "jti": secrets.token_urlsafe(16),
            "htm": "GET",
            "htu": f"{AUDIENCE}/ledger",
            "iat": int(time.time()),
            "ath": digest(token),
        }
        shown = {"typ": "dpop+jwt", "alg": jwk_of(self.key)["alg"], "jwk": public(self.key)}
        return compact(self.key, changed(shown, header or {}), changed(said, claims))

    def request(self, token: str, proof: str | None = None, **members: Any) -> Request:
        """GET /ledger with this token and a proof for it."""
        headers = [("Authorization", f"DPoP {token}"), ("DPoP", proof or self.proof(token))]
        return Request(**{"method": "GET", "path": "/ledger", "headers": headers} | members)


def denied(guard: Guard, request: Request, status: int, error: str, *scopes: str) -> Denied:
    """The denial with this status and error, whose `WWW-Authenticate` says so too."""
    with pytest.raises(Denied) as caught:
        guard.check(request, *scopes)
    refusal = caught.value
    assert (refusal.status, refusal.error) == (status, error), refusal
    told = [value for name, value in refusal.headers if name == "WWW-Authenticate"]
    if status == 503:
        assert told == []
    elif error != "unauthenticated":
        assert any(f'error="{error}"' in value for value in told)
    return refusal


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        """A server that is gone keeps no connection either."""
        super().server_close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


def _handler_of(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = self.path == "/.well-known/jwks.json"
            self._answer(*((200, issuer.jwks()) if found else (404, b"{}")))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            found = self.path == "/oauth/introspect"
            self._answer(*(issuer.introspect(form) if found else (404, b"{}")))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", f"{issuer.url}/elsewhere")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not issuer.drip:
                self.wfile.write(body)
                return
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(issuer.drip)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _unpadded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
