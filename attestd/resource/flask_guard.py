"""How does a Flask application let attested agents in and nobody else?

    @app.get("/ledger")
    @flask_guard(guard, "ledger.read")
    def ledger():
        return f"hello {flask.g.caller.agent}"

Flask is imported when the first view is guarded, so that nothing else needs it.
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec
from urllib.parse import quote

from attestd.resource.caller import Denied, Request
from attestd.resource.guard import Guard

if TYPE_CHECKING:
    import flask

P = ParamSpec("P")
View = Callable[P, Any]
_PATH_CHARACTERS = "/:@!$&'()*+,;=~"


def flask_guard(
    guard: Guard, *scopes: str, certificate: Callable[[dict[str, Any]], bytes | None] | None = None
) -> Callable[[View[P]], View[P]]:
    """Let through requests of agents that have all of `scopes`, with `flask.g.caller` set. `certificate`
    finds the client's certificate (DER) in the WSGI environment; gunicorn's is found without it."""
    import flask

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                flask.g.caller = guard.check(
                    _request(flask.request, certificate or peer_certificate), *scopes
                )
            except Denied as denied:
                status, headers, body = denied.answer()
                return flask.Response(body, status, headers)
            flask.after_this_request(lambda response: _with_headers(response, guard))
            return flask.current_app.ensure_sync(view)(*args, **kwargs)

        return guarded

    return decorate


def serve_metadata(app: "flask.Flask", guard: Guard) -> None:
    """Answer with the resource's metadata (RFC 9728) where its clients look for it."""
    import flask

    if guard.metadata_path is not None:
        app.add_url_rule(
            guard.metadata_path,
            "attestd_resource_metadata",
            lambda: flask.Response(guard.metadata_body(), content_type="application/json"),
        )


def peer_certificate(environ: dict[str, Any]) -> bytes | None:
    """From the socket's TLS, never from a header that a client could send."""
    read = getattr(environ.get("gunicorn.socket"), "getpeercert", None)
    found = None if read is None else read(True)
    return found if isinstance(found, bytes) else None


def _request(request: "flask.Request", certificate: Callable[[dict[str, Any]], bytes | None]) -> Request:
    # What the server decoded and Flask routed, spelled once again: no other path can be meant.
    decoded = request.environ.get("SCRIPT_NAME", "") + request.environ.get("PATH_INFO", "")
    path = quote(decoded.encode("latin-1"), safe=_PATH_CHARACTERS)
    return Request(request.method, path, list(request.headers.items()), certificate(request.environ))


def _with_headers(response: "flask.Response", guard: Guard) -> "flask.Response":
    response.headers.extend(guard.response_headers())
    return response
