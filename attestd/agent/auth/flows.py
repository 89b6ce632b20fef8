"""How does an auth object of httpx, or of its successor httpx2, attach token and proof?

The two libraries ask for the same two generators over their own requests and responses.
"""

from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio.to_thread

from attestd.agent.auth.session import AgentSession, Headers


class Flows:
    """Both generators, for any request with `method`, `url` and `headers`, and any response with `url`,
    `status_code` and `headers`. A request that the resource wants proven otherwise is sent once more."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        request.headers.update(self._headers(request))
        response = yield request
        if (again := self._again(request, response)) is not None:
            request.headers.update(again)
            yield request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        request.headers.update(await anyio.to_thread.run_sync(self._headers, request))
        response = yield request
        again = await anyio.to_thread.run_sync(self._again, request, response)
        if again is not None:
            request.headers.update(again)
            yield request

    def _headers(self, request: Any) -> Headers:
        return self._session.headers(request.method, str(request.url))

    def _again(self, request: Any, response: Any) -> Headers | None:
        return self._session.again(
            request.method,
            str(request.url),
            sent=request.headers,
            answered=(str(response.url), response.status_code),
            told=response.headers,
        )
