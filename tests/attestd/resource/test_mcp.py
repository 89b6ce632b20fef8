"""May an attested agent call the tool of a real MCP server, through the real client, and nobody else?"""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from attestd.resource.asgi import AsgiGuard
from scripts.demonstration.mcp_server import server
from tests.attestd.resource.issuer import AGENT, Agent, Issuer


class Proving(httpx2.Auth):
    """The token with a new proof for each request."""

    def __init__(self, agent: Agent, token: str, scheme: str = "DPoP") -> None:
        self._agent, self._token, self._scheme = agent, token, scheme

    def auth_flow(self, request: httpx2.Request) -> Any:
        request.headers["Authorization"] = f"{self._scheme} {self._token}"
        request.headers["DPoP"] = self._agent.proof(self._token, htm=request.method, htu=str(request.url))
        yield request


class Running:
    """The demonstration's server behind its guard, on a port of its own."""

    def __init__(self, issuer: Issuer) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        # The resource that the test's issuer knows, here at this URL.
        guard = issuer.guard(url=self.url.removesuffix("/mcp"), scopes=("ledger.read",))
        app = AsgiGuard(server.streamable_http_app(stateless_http=True), guard, scopes=("ledger.read",))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture
def running(issuer: Issuer) -> Iterator[Running]:
    made = Running(issuer)
    yield made
    made.stop()


@asynccontextmanager
async def connected(url: str, auth: httpx2.Auth | None) -> AsyncGenerator[Client, None]:
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


def call(url: str, auth: httpx2.Auth | None) -> str:
    async def run() -> str:
        async with connected(url, auth) as client:
            result = await client.call_tool("read_balance", {"account": "acme"})
            return str(result.content[0].text)  # type: ignore[union-attr]

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_an_attested_agent_calls_the_tool_and_the_tool_knows_for_whom(
    issuer: Issuer, agent: Agent, running: Running
) -> None:
    own = Proving(agent, issuer.token(agent))
    assert call(running.url, own) == f"acme holds 42 for {AGENT}, told to {AGENT}"
    for_alice = Proving(agent, issuer.token(agent, sub="alice", act={"sub": AGENT}))
    assert call(running.url, for_alice) == f"acme holds 42 for alice, told to {AGENT}"


@pytest.mark.parametrize("who", ["nobody", "thief", "bearer", "without_scope", "for_another"])
def test_nobody_else_calls_the_tool(issuer: Issuer, agent: Agent, running: Running, who: str) -> None:
    auths: dict[str, Callable[[], httpx2.Auth | None]] = {
        "nobody": lambda: None,
        "thief": lambda: Proving(Agent(), issuer.token(agent)),
        "bearer": lambda: Proving(agent, issuer.token(agent), "Bearer"),
        "without_scope": lambda: Proving(agent, issuer.token(agent, scope="other")),
        "for_another": lambda: Proving(agent, issuer.token(agent, aud="https://other.example.org")),
    }
    with pytest.raises(BaseException) as caught:  # noqa: PT011 the client's error groups have no common class
        call(running.url, auths[who]())
    assert "holds 42" not in str(caught.value)
    assert call(running.url, Proving(agent, issuer.token(agent)))


def test_oa_9_the_same_call_is_refused_within_two_seconds_after_the_token_was_ended(
    issuer: Issuer, agent: Agent, running: Running
) -> None:
    async def run() -> float:
        auth = Proving(agent, issuer.token(agent, jti="token-1"))
        async with connected(running.url, auth) as client:
            await client.call_tool("read_balance", {"account": "acme"})
            issuer.ended.add("token-1")
            ended = time.monotonic()
            while time.monotonic() - ended < 5:
                await client.call_tool("read_balance", {"account": "acme"})
                await asyncio.sleep(0.05)
        raise AssertionError("still let in")

    began = time.monotonic()
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        asyncio.run(run())
    assert not isinstance(caught.value, AssertionError)
    assert time.monotonic() - began < 4


def test_a_client_finds_the_issuer_by_the_challenge(issuer: Issuer, running: Running) -> None:
    challenge = httpx2.post(running.url, json={}).headers["WWW-Authenticate"]
    assert "resource_metadata=" in challenge
    found = httpx2.get(running.url.replace("/mcp", "/.well-known/oauth-protected-resource")).json()
    assert found["authorization_servers"] == [issuer.url]
