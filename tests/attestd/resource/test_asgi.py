"""Does an ASGI application see requests of attested agents only, and does an answer end with its token?"""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.resource.asgi import AsgiGuard, caller_of
from attestd.resource.caller import Request
from tests.attestd.resource.issuer import AGENT, Agent, Issuer, digest
from tests.attester import TestMaker


@dataclass
class Exchange:
    """A server's side of one request."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def scope_of(request: Request, **members: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": request.method,
        "path": request.path,
        "raw_path": request.path.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in request.headers],
    } | members


async def hello(scope: Any, receive: Any, send: Any) -> None:
    body = caller_of(scope).agent.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": body})


def serve(app: Callable[..., Awaitable[None]], scope: dict[str, Any]) -> Exchange:
    exchange = Exchange()
    asyncio.run(app(scope, exchange.receive, exchange.send))  # type: ignore[arg-type]
    return exchange


def test_the_application_gets_the_caller_and_the_client_the_next_nonce(issuer: Issuer, agent: Agent) -> None:
    guard = issuer.guard(nonce_key=bytes(32))
    app = AsgiGuard(hello, guard)
    token = issuer.token(agent)
    first = serve(app, scope_of(agent.request(token)))
    assert (first.status, first.headers["www-authenticate"].split(",")[0]) == (
        401,
        'DPoP error="use_dpop_nonce"',
    )
    proof = agent.proof(token, nonce=first.headers["dpop-nonce"])
    second = serve(app, scope_of(agent.request(token, proof)))
    assert (second.status, second.body) == (200, AGENT.encode())
    assert {"x-own", "dpop-nonce"} <= second.headers.keys()


def test_nobody_else_reaches_the_application(issuer: Issuer, agent: Agent) -> None:
    reached: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await hello(scope, receive, send)

    app = AsgiGuard(application, issuer.guard(), scopes=("ledger.read",))
    anonymous = serve(app, scope_of(Request("GET", "/ledger", [])))
    assert (anonymous.status, json.loads(anonymous.body)["code"]) == (401, "unauthenticated")
    without = serve(app, scope_of(agent.request(issuer.token(agent, scope="other"))))
    assert (without.status, json.loads(without.body)["code"]) == (403, "insufficient_scope")
    assert reached == []
    assert serve(app, scope_of(agent.request(issuer.token(agent)))).status == 200
    assert reached == ["/ledger"]


def test_the_metadata_is_for_everybody(issuer: Issuer) -> None:
    guard = issuer.guard(scopes=("ledger.read",))
    answer = serve(AsgiGuard(hello, guard), scope_of(Request("GET", str(guard.metadata_path), [])))
    assert (answer.status, json.loads(answer.body)) == (200, guard.metadata())


def test_a_websocket_is_refused(issuer: Issuer, agent: Agent) -> None:
    scope = scope_of(agent.request(issuer.token(agent)), type="websocket")
    exchange = serve(AsgiGuard(hello, issuer.guard()), scope)
    assert exchange.sent == [{"type": "websocket.close", "code": 1008}]


def test_the_servers_life_is_the_applications(issuer: Issuer) -> None:
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    serve(AsgiGuard(application, issuer.guard()), {"type": "lifespan"})
    assert seen == ["lifespan"]
    with pytest.raises(ValueError, match="not guarded"):
        serve(AsgiGuard(application, issuer.guard()), {"type": "other"})


def test_a_slow_issuer_does_not_block_the_loop(issuer: Issuer, agent: Agent) -> None:
    app = AsgiGuard(hello, issuer.guard())
    serve(app, scope_of(agent.request(issuer.token(agent))))
    issuer.delay = 0.5
    ticks = 0

    async def run() -> None:
        nonlocal ticks
        exchange = Exchange()
        scope = scope_of(agent.request(issuer.token(agent)))
        calling = asyncio.create_task(app(scope, exchange.receive, exchange.send))
        while not calling.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert exchange.status == 200

    asyncio.run(run())
    assert ticks >= 20


def test_an_answer_that_goes_on_is_cut_when_its_token_was_ended(issuer: Issuer, agent: Agent) -> None:
    ended = threading.Event()
    parts: list[bytes] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            parts.append(b"part")
            if number == 5:
                issuer.ended.add("token-1")
                ended.set()
            await asyncio.sleep(0.02)

    app = AsgiGuard(stream, issuer.guard(check_every=0.1))
    exchange = Exchange()
    scope = scope_of(agent.request(issuer.token(agent, jti="token-1")))
    with pytest.raises(OSError, match="the token has ended"):
        asyncio.run(app(scope, exchange.receive, exchange.send))
    assert ended.is_set()
    assert 5 < len(parts) < 40
    assert exchange.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    # One whose token is good goes on to its end.
    other = scope_of(agent.request(issuer.token(agent)))
    assert len(serve(AsgiGuard(stream, issuer.guard(check_every=0.1)), other).sent) == 101


def test_an_application_that_goes_on_all_the_same_is_not_heard(issuer: Issuer, agent: Agent) -> None:
    failed = []

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        issuer.ended.add("token-1")
        await asyncio.sleep(0.15)
        for _ in range(3):
            try:
                await send({"type": "http.response.body", "body": b"part", "more_body": True})
            except OSError:
                failed.append("refused")

    app = AsgiGuard(stubborn, issuer.guard(check_every=0.1))
    exchange = serve(app, scope_of(agent.request(issuer.token(agent, jti="token-1"))))
    assert exchange.body == b""
    assert len(failed) == 3
    assert [message["type"] for message in exchange.sent] == ["http.response.start", "http.response.body"]


def test_an_answer_that_takes_long_is_not_given_when_the_token_was_ended_meanwhile(
    issuer: Issuer, agent: Agent
) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        issuer.ended.add("token-1")
        await asyncio.sleep(0.15)
        await hello(scope, receive, send)

    app = AsgiGuard(slow, issuer.guard(check_every=0.1))
    exchange = Exchange()
    scope = scope_of(agent.request(issuer.token(agent, jti="token-1")))
    with pytest.raises(OSError, match="the token has ended"):
        asyncio.run(app(scope, exchange.receive, exchange.send))
    assert exchange.status == 401
    assert AGENT.encode() not in exchange.body


def test_oa_5_a_certificate_comes_from_the_servers_tls_alone(issuer: Issuer, agent: Agent) -> None:
    certificate = TestMaker.create().certificate
    pem = certificate.public_bytes(Encoding.PEM).decode()
    thumbprint = digest(certificate.public_bytes(Encoding.DER).decode("latin-1"), encoding="latin-1")
    token = issuer.token(agent, cnf={"x5t#S256": thumbprint})
    app = AsgiGuard(hello, issuer.guard(certificates=True))
    request = Request("GET", "/ledger", [("Authorization", f"Bearer {token}")])
    shown = {"tls": {"client_cert_chain": [pem]}}
    assert serve(app, scope_of(request, extensions=shown)).status == 200
    nothing: list[dict[str, Any]] = [{}, {"tls": {"client_cert_chain": []}}]
    for extensions in nothing:
        assert serve(app, scope_of(request, extensions=extensions)).status == 401
    by_header = Request("GET", "/ledger", [*request.headers, ("X-SSL-Client-Cert", pem.replace("\n", ""))])
    assert serve(app, scope_of(by_header)).status == 401


def test_a_target_that_is_no_path_is_denied_and_not_an_error(issuer: Issuer, agent: Agent) -> None:
    app = AsgiGuard(hello, issuer.guard())
    for raw in (b"http://other.example.org/ledger", b"*", b"//", b"/\xff", b":x", b"@other.example.org/"):
        token = issuer.token(agent, iat=int(time.time()))
        scope = scope_of(agent.request(token), raw_path=raw)
        assert serve(app, scope).status == 401, raw
