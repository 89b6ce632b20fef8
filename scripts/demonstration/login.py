"""Who is the user? A small OpenID Provider on loopback: discovery, keys, and a token for who logged in."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

AUDIENCE = "attestd"
_KID = "users"


@dataclass(frozen=True, slots=True)
class Login:
    """The provider at `issuer`; everybody who asks is believed, which no real one does."""

    issuer: str
    key: ec.EllipticCurvePrivateKey

    def log_in(self, user: str) -> str:
        """An ID token (OpenID Connect Core 1.0, section 2) that attestd takes as the user's consent."""
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": user, "aud": AUDIENCE, "iat": now, "exp": now + 600}
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": _KID})

    def documents(self) -> dict[str, dict[str, Any]]:
        """By path, what it publishes."""
        point = self.key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": _KID}
        jwk |= {"x": _coordinate(point.x), "y": _coordinate(point.y)}
        return {
            "/.well-known/openid-configuration": {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"},
            "/keys": {"keys": [jwk]},
        }


@contextmanager
def login(issuer: str) -> Iterator[Login]:
    """Serves at this address until the context ends."""
    provider = Login(issuer, ec.generate_private_key(ec.SECP256R1()))
    documents = {path: json.dumps(each).encode() for path, each in provider.documents().items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = documents.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Not part of the story."""

    server = ThreadingHTTPServer(("127.0.0.1", urlsplit(issuer).port or 80), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _coordinate(value: int) -> str:
    return urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
