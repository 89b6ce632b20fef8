"""How does an attested agent call with `requests`?

`requests.get(url, auth=AgentAuth(session))`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from requests import PreparedRequest, Response
from requests.auth import AuthBase

from attestd.agent.auth.session import AgentSession


class AgentAuth(AuthBase):
    """Attaches token and proof to each request; a request that the resource wants proven otherwise is sent
    once more."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        r.headers.update(self._session.headers(r.method or "", r.url or ""))
        body: Any = r.body
        place = body.tell() if hasattr(body, "tell") else None
        r.register_hook("response", partial(self._answered, proven=r.url or "", place=place))
        return r

    def _answered(self, response: Response, *, proven: str, place: int | None, **kept: Any) -> Response:
        """What to do with the answer. `proven` is the address for which the request was proven: the library
        calls this for what redirects lead to as well. `place` is where the body began, if it is a file."""
        asked = response.request
        again = self._session.again(
            asked.method or "",
            proven,
            sent=_plain(asked.headers),
            answered=(response.url, response.status_code),
            told=response.headers,
        )
        if again is None:
            return response
        # As the library's own digest authentication does: the connection is used again, the body rewound.
        _ = response.content
        response.close()
        prepared = asked.copy()
        if place is not None:
            prepared.body.seek(place)  # type: ignore[union-attr]
        prepared.headers.update(again)
        second: Response = response.connection.send(prepared, **kept)
        second.history.append(response)
        second.request = prepared
        return second


def _plain(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    """Ours are text; the library allows bytes."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}
