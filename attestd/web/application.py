"""How does a request reach its verb, and how does every refusal become one answer and one record?

A thin Flask: it routes, and hands every error to one place. No sessions, templates, files or redirects.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from attestd.clock import now_ms
from attestd.protocol import read
from attestd.store.errors import StoreUnavailable
from attestd.web.answers import JSON, Headers, headers_of, internal_error, problem_answer, store_unavailable
from attestd.web.body import json_bytes
from attestd.web.exchange import KEY, Exchange, source_of
from attestd.web.log import SERVER
from attestd.web.metrics import Metrics
from attestd.web.pages import pages_of
from attestd.web.routes import Page, Verb, check_declared, check_table
from attestd.web.seam import WebService
from attestd.wire import Problem, dump_json, load_json

_NOT_FOUND: Final = "There is nothing at this path; paths are taken as they are written."


class Web(Flask):
    """The WSGI application. `refusal` serves the worker too, for requests that never get as far as this."""

    def __init__(self, service: WebService, verbs: Sequence[Verb], metrics: Metrics) -> None:
        super().__init__("attestd.web", static_folder=None)
        self.service = service
        self.metrics = metrics
        self.table: tuple[Verb | Page, ...] = (*verbs, *pages_of(service, tuple(verbs), metrics))
        limits = service.config.limits
        self._caps = {
            entry.path.encode(): limits.attestation_body for entry in verbs if entry.cap == "attestation_body"
        }
        self._cap = limits.body
        self._behind_proxy = service.config.tls.behind_proxy
        self.url_map.merge_slashes = False  # it would redirect //path
        check_table(self.table)
        for entry in self.table:
            self._add(entry)
        self.register_error_handler(Exception, self._answer_error)

    def check(self) -> None:
        """ValueError for a rule that came in beside the table; asked once more when the server starts."""
        check_declared(self.url_map, self.table)

    def cap_of(self, path: bytes) -> int:
        """The largest body for a path as it stands in the request line."""
        return self._caps.get(path, self._cap)

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        source = source_of(environ, behind_proxy=self._behind_proxy)
        environ[KEY] = Exchange.begin(source, now=now_ms())
        return super().wsgi_app(environ, start_response)

    def dispatch_request(self) -> Any:
        environ = request.environ
        # Percent-encoded, doubled, absolute or otherwise rewritten paths are other paths: what a proxy or a
        # log compares must not reach a verb under a second name. Werkzeug itself takes //path for /path.
        sent = str(environ.get("RAW_URI", environ["PATH_INFO"])).partition("?")[0]
        rule = sent if request.url_rule is None else request.url_rule.rule
        if not sent == environ["PATH_INFO"] == rule:
            raise Problem("not_found", _NOT_FOUND, cause="path_form")
        if request.url_rule is not None:
            environ[KEY].route = rule
        return super().dispatch_request()

    def refusal(self, problem: Problem, exchange: Exchange) -> tuple[int, Headers, bytes]:
        """Record the refusal, then say it. What cannot be recorded is `unavailable`."""
        if not problem.recorded:
            try:
                self.service.refuse(
                    problem,
                    now=exchange.now,
                    request_id=exchange.request_id,
                    source=exchange.source,
                    path=exchange.route,
                )
            except StoreUnavailable as error:
                SERVER.error("the store is unavailable: %s", error)
                problem = store_unavailable()
            except Exception:
                SERVER.exception("a refusal could not be recorded")
                problem = internal_error()
        if problem.device_id is not None:
            self.service.limits.return_source(exchange.source)
        exchange.code, exchange.device_id = problem.code, problem.device_id
        return problem_answer(problem, exchange.request_id)

    def _add(self, entry: Verb | Page) -> None:
        view = self._verb(entry) if isinstance(entry, Verb) else _page(entry)
        method = "POST" if isinstance(entry, Verb) else "GET"
        self.add_url_rule(
            entry.path, entry.path.replace(".", "_"), view, methods=[method], provide_automatic_options=False
        )

    def _verb(self, verb: Verb) -> Callable[[], Response]:
        """A route decodes, calls, encodes."""
        service, limits, cap = self.service, self.service.limits, self.cap_of(verb.path.encode())

        def view() -> Response:
            exchange: Exchange = request.environ[KEY]
            limits.admit_source(exchange.source, now=exchange.now)
            body = read(verb.model, load_json(json_bytes(request.environ, cap)))
            answer = verb.call(service, body, now=exchange.now, request_id=exchange.request_id)
            if verb.proves:
                limits.return_source(exchange.source)
            exchange.device_id = answer.get("device_id")
            raw = dump_json(answer)
            return Response(raw, verb.status, headers_of(exchange.request_id, JSON, length=len(raw)))

        return view

    def _answer_error(self, error: Exception) -> Response:
        problem = _problem_of(error)
        status, headers, body = self.refusal(problem, request.environ[KEY])
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            headers.append(("Allow", ", ".join(sorted(error.valid_methods))))
        return Response(body, status, headers)


def _page(page: Page) -> Callable[[], Response]:
    def view() -> Response:
        exchange: Exchange = request.environ[KEY]
        document = page.render(exchange.now)
        headers = dict(headers_of(exchange.request_id, document.media_type, length=len(document.body)))
        if document.max_age:
            headers["Cache-Control"] = f"public, max-age={document.max_age}"
        if document.etag is None:
            return Response(document.body, 200, headers)
        headers["ETag"] = document.etag
        if request.if_none_match.contains_weak(document.etag.strip('"')):
            del headers["Content-Length"]
            return Response(b"", 304, headers)
        return Response(document.body, 200, headers)

    return view


def _problem_of(error: Exception) -> Problem:
    """What is told of an error; whatever nobody foresaw says nothing and grants nothing."""
    match error:
        case Problem():
            return error
        case StoreUnavailable():
            SERVER.error("the store is unavailable: %s", error)
            return store_unavailable()
        case NotFound():
            return Problem("not_found", _NOT_FOUND, cause="path_unknown")
        case MethodNotAllowed():
            return Problem("method_not_allowed", "This path does not take this method.", cause="method")
        case HTTPException(code=int(status)) if 400 <= status < 500:
            return Problem("malformed", "The request is not one that is taken here.", cause="http")
    SERVER.error("unexpected error", exc_info=error)
    return internal_error()


def create_web(service: WebService, verbs: Sequence[Verb], *, metrics: Metrics | None = None) -> Web:
    """The application; ValueError if a route does not say how its callers are authenticated."""
    return Web(service, verbs, metrics or Metrics())
