"""How does an agent on an attested machine call a tool? The MCP client, with our auth object."""

import asyncio
from dataclasses import dataclass, field

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from attestd.agent.auth.httpx2 import AgentAuth
from attestd.agent.auth.session import AgentSession

_PATIENCE = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tool said, or None; and the server's last status with why, if it gave one."""

    text: str | None
    status: int
    why: str = field(default="")


def call_tool(url: str, session: AgentSession | None) -> Answer:
    """One call of `read_balance`; without a session, as anybody could."""
    return asyncio.run(asyncio.wait_for(_call(url, session), _PATIENCE))


async def _call(url: str, session: AgentSession | None) -> Answer:
    seen: list[httpx2.Response] = []

    async def note(response: httpx2.Response) -> None:
        seen.append(response)

    auth = None if session is None else AgentAuth(session)
    text = None
    try:
        async with (
            httpx2.AsyncClient(auth=auth, event_hooks={"response": [note]}) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            result = await client.call_tool("read_balance", {"account": "acme"})
            text = str(getattr(result.content[0], "text", ""))
    except Exception:
        # Its groups of errors have no class in common; whether it was refused, the status says.
        if not seen or seen[-1].status_code < 400:
            raise
    return Answer(text, seen[-1].status_code, seen[-1].headers.get("WWW-Authenticate", ""))
