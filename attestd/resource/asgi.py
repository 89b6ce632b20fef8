"""How does an ASGI application (Starlette, FastAPI, an MCP server) let attested agents in and nobody else?

    app = AsgiGuard(app, guard, scopes=("ledger.read",))
    caller = caller_of(scope)

Nothing of a framework is imported. The check may wait for the issuer, so it runs in a thread and never in the
loop. An answer that goes on is cut when its token ends: what is sent later than `check_every` after the last
check is sent only if the token is still good. WebSockets are refused, because nothing would end them.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.resource.caller import Caller, Denied, Headers, Request
from attestd.resource.guard import Guard

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Result = TypeVar("Result")

KEY: Final = "attestd.caller"
_POLICY_VIOLATION: Final = 1008
_THREADS: Final = 32


def caller_of(scope: Scope) -> Caller:
    """The agent whose request this is; KeyError where no guard has let it in."""
    caller = scope[KEY]
    assert isinstance(caller, Caller)
    return caller


class AsgiGuard:
    """Around the application: what comes through is an attested agent's. It answers with the resource's
    metadata by itself, to everybody."""

    def __init__(self, app: App, guard: Guard, *, scopes: Sequence[str] = ()) -> None:
        self._app = app
        self._guard = guard
        self._scopes = tuple(scopes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="attestd-guard")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._app(scope, receive, send)
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            case other:
                raise ValueError(f"requests of type {other} are not guarded")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == self._guard.metadata_path and scope["method"] in ("GET", "HEAD"):
            body = self._guard.metadata_body()
            await _answer(send, 200, (("Content-Type", "application/json"),), body)
            return
        request = _request_of(scope)
        try:
            caller = await self._in_thread(lambda: self._guard.check(request, *self._scopes))
        except Denied as denied:
            status, headers, body = denied.answer()
            await _answer(send, status, tuple(headers), body)
            return
        guarded = _Guarded(self._guard, request, send, self._in_thread)
        await self._app({**scope, KEY: caller}, receive, guarded.send)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Guarded:
    """Sends one answer as long as its token is good."""

    def __init__(
        self, guard: Guard, request: Request, send: Send, in_thread: Callable[..., Awaitable[None]]
    ) -> None:
        self._guard = guard
        self._request = request
        self._send = send
        self._in_thread = in_thread
        self._checked_at = guard.clock()
        self._started = False
        self._ended = False

    async def send(self, message: Message) -> None:
        if self._ended:
            raise OSError("the token has ended, and with it the answer")
        if not 0 <= self._guard.clock() - self._checked_at < self._guard.check_every:
            await self._check_again()
        if message["type"] == "http.response.start":
            self._started = True
            message = {
                **message,
                "headers": [*message.get("headers", ()), *_raw(self._guard.response_headers())],
            }
        await self._send(message)

    async def _check_again(self) -> None:
        began = self._guard.clock()
        try:
            await self._in_thread(lambda: self._guard.recheck(self._request))
        except Denied as denied:
            self._ended = True
            if not self._started:
                status, headers, body = denied.answer()
                await _answer(self._send, status, tuple(headers), body)
            else:
                with suppress(Exception):  # a server may refuse to end an answer that is too short; it is cut
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise OSError("the token has ended, and with it the answer") from None
        self._checked_at = began


def _request_of(scope: Scope) -> Request:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    raw = scope.get("raw_path") or scope["path"].encode()
    return Request(scope["method"], raw.decode("latin-1").partition("?")[0], headers, _certificate_of(scope))


def _certificate_of(scope: Scope) -> bytes | None:
    """From the server's TLS layer (the ASGI TLS extension), where it has one."""
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    for pem in chain:
        return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    return None


def _raw(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": body})
