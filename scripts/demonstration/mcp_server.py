"""Which MCP server lets attested agents call its tool, and nobody else?

    python -m scripts.demonstration.mcp_server ISSUER KEY [PORT]

ISSUER is attestd's URL; KEY the private key of the `[[resource]]` whose audience is this server's URL
(`python -m attestd.resource.new_key`).
"""

import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request

from attestd.resource.asgi import AsgiGuard, caller_of
from attestd.resource.credentials import ByKey
from attestd.resource.guard import Guard

server = MCPServer("ledger")


@server.tool()
def read_balance(account: str, context: Context[object, Request]) -> str:
    """What an account holds, told to an attested agent with the scope `ledger.read`."""
    request = context.request_context.request
    assert request is not None  # there is no way in but HTTP
    caller = caller_of(request.scope)
    return f"{account} holds 42 for {caller.user or caller.agent}, told to {caller.agent}"


def guarded(issuer: str, key: Path, url: str) -> AsgiGuard:
    """The server at `url`, behind its guard."""
    guard = Guard(issuer=issuer, audience=url, introspection=ByKey(url, key), scopes=("ledger.read",))
    return AsgiGuard(server.streamable_http_app(stateless_http=True), guard, scopes=("ledger.read",))


if __name__ == "__main__":
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 8450
    uvicorn.run(guarded(sys.argv[1], Path(sys.argv[2]), f"http://127.0.0.1:{port}/mcp"), port=port)
