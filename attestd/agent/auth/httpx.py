"""How does an attested agent call with `httpx`?

`httpx.Client(auth=AgentAuth(session))`, or `AsyncClient`, whose loop goes on while the machine attests.
"""

from collections.abc import AsyncGenerator, Generator

import anyio.to_thread
import httpx

from attestd.agent.auth.session import AgentSession, Headers


class AgentAuth(httpx.Auth):
    """Attaches token and proof to each request; a request that the resource wants proven otherwise is sent
    once more."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.update(self._headers(request))
        response = yield request
        if (again := self._again(request, response)) is not None:
            request.headers.update(again)
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers.update(await anyio.to_thread.run_sync(self._headers, request))
        response = yield request
        again = await anyio.to_thread.run_sync(self._again, request, response)
        if again is not None:
            request.headers.update(again)
            yield request

    def _headers(self, request: httpx.Request) -> Headers:
        return self._session.headers(request.method, str(request.url))

    def _again(self, request: httpx.Request, response: httpx.Response) -> Headers | None:
        return self._session.again(
            request.method,
            str(request.url),
            sent=request.headers,
            answered=(str(response.url), response.status_code),
            told=response.headers,
        )
