"""How does a request reach its verb, and how does every refusal become one answer and one record?

A thin Flask: it routes, and hands every error to one place. No sessions, templates, files or redirects.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from attestd.clock import now_ms
from attestd.oauth.errors import OAuthError
from attestd.oauth.metadata import mtls_url
from attestd.protocol import read
from attestd.store.errors import StoreUnavailable
from attestd.web.answers import JSON, Headers, headers_of, internal_error, problem_answer, store_unavailable
from attestd.web.body import json_bytes
from attestd.web.exchange import KEY, Exchange, source_of
from attestd.web.forms import FORM_CAP, granted, peer_certificate, refused, request_of
from attestd.web.log import SERVER
from attestd.web.metrics import Metrics
from attestd.web.pages import pages_of
from attestd.web.routes import Entry, Form, Page, Verb, check_declared, check_table
from attestd.web.seam import Published, WebService
from attestd.wire import Problem, dump_json, load_json

_NOT_FOUND: Final = "There is nothing at this path; paths are taken as they are written."


class Web(Flask):
    """The WSGI application. `refusal` serves the worker too, for requests that never get as far as this."""

    def __init__(
        self,
        service: WebService,
        actions: Sequence[Verb | Form],
        published: Mapping[str, Callable[[int], Published]],
        metrics: Metrics,
    ) -> None:
        super().__init__("attestd.web", static_folder=None)
        self.service = service
        self.metrics = metrics
        actions = tuple(actions)
        self.table: tuple[Entry, ...] = (*actions, *pages_of(service, actions, metrics, published))
        self._cap = service.config.limits.body
        self._caps = {entry.path.encode(): self._cap_for(entry) for entry in actions}
        self._url, self._mtls_url = service.config.external_url, mtls_url(service.config)
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

    def _cap_for(self, entry: Verb | Form) -> int:
        if isinstance(entry, Form):
            return min(FORM_CAP, self._cap)
        limits = self.service.config.limits
        return limits.attestation_body if entry.cap == "attestation_body" else self._cap

    def _add(self, entry: Entry) -> None:
        match entry:
            case Verb():
                view = self._verb(entry)
            case Form():
                view = self._form(entry)
            case Page():
                view = _page(entry)
        method = "GET" if isinstance(entry, Page) else "POST"
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

    def _form(self, form: Form) -> Callable[[], Response]:
        """The same for the authorization server, whose refusals are told as OAuth tells them."""
        limits, cap = self.service.limits, self.cap_of(form.path.encode())

        def view() -> Response:
            exchange: Exchange = request.environ[KEY]
            limits.admit_source(exchange.source, now=exchange.now)
            try:
                url = self._url_of(request.environ)
                asked = request_of(request.environ, exchange, url, cap if form.takes_form else None)
                answer = form.call(asked)
            except OAuthError as error:
                return self._refused(form, error, exchange)
            if answer.proven:
                limits.return_source(exchange.source)
            exchange.device_id = answer.device_id
            status, headers, body = granted(answer, exchange.request_id)
            return Response(body, status, headers)

        return view

    def _url_of(self, environ: Mapping[str, Any]) -> str:
        """The configured URL of the listener that the request came to; only one of them asks for
        certificates."""
        if self._mtls_url is not None and peer_certificate(environ) is not None:
            return self._mtls_url
        return self._url

    def _refused(self, form: Form, error: OAuthError, exchange: Exchange) -> Response:
        form.record(error, now=exchange.now, request_id=exchange.request_id, source=exchange.source)
        # A device named by a credential that has ended is proven too, but no limit of its own counts it.
        if error.recorded and error.device_id is not None:
            self.service.limits.return_source(exchange.source)
        exchange.code, exchange.device_id = error.error, error.device_id
        tried = "HTTP_AUTHORIZATION" in request.environ
        status, headers, body = refused(error, exchange.request_id, authorization=tried)
        return Response(body, status, headers)

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


def create_web(
    service: WebService,
    actions: Sequence[Verb | Form],
    *,
    published: Mapping[str, Callable[[int], Published]] | None = None,
    metrics: Metrics | None = None,
) -> Web:
    """The application, with documents that are published beside the service's own; ValueError if a route does
    not say how its callers are authenticated."""
    return Web(service, actions, published or {}, metrics or Metrics())
