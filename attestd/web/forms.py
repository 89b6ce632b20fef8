"""What did an OAuth client send, before anyone looks into it, and how is it answered?

Parameters come as `application/x-www-form-urlencoded` (RFC 6749, appendix B) in the body and from nowhere
else, strictly: one decoding, no parameter twice but those that an RFC lets repeat. The certificate of the
peer comes from the socket; a header that claims one is a header like any other.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from attestd.oauth.answer import Answer
from attestd.oauth.errors import OAuthError
from attestd.oauth.request import Request
from attestd.web.answers import JSON, Headers, headers_of
from attestd.web.body import check_size, read_body
from attestd.web.exchange import Exchange
from attestd.wire import dump_json

TEXT: Final = "text/plain; charset=utf-8"
FORM_CAP: Final = 128 * 1024
"""Bytes of a form: several tokens of 16 KiB, with room."""
MAX_PARAMETERS: Final = 64
REPEATABLE: Final = frozenset({"resource", "audience"})
"""RFC 8707, section 2; RFC 8693, section 2.1."""

_FORM = re.compile(
    r'application/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?', re.IGNORECASE | re.ASCII
)
_PLUS_OR_PLAIN = re.compile(rb"(?:[A-Za-z0-9*._~+!'(),;:@/?$-]|%[0-9A-Fa-f]{2})*")
_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749, section 5.2


def form_of(environ: Mapping[str, Any], cap: int) -> dict[str, tuple[str, ...]]:
    """The parameters in the order given. OAuthError `invalid_request`, or Problem `too_large`."""
    # 1. It is a form, said to be one, and all of it is in the body.
    check_size(environ, cap)
    content_type = environ.get("CONTENT_TYPE") or ""
    if _FORM.fullmatch(content_type) is None:
        raise _refused("Send the parameters as application/x-www-form-urlencoded.", "content_type")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise _refused("Send the body as it is, without a Content-Encoding.", "content_encoding")
    if environ.get("QUERY_STRING"):
        raise _refused("Parameters go into the body, not into the URL.", "query")
    raw = read_body(environ, cap)

    # 2. Each is a name and a value, decoded once.
    pairs = raw.split(b"&") if raw else []
    if len(pairs) > MAX_PARAMETERS:
        raise _refused(f"A form has at most {MAX_PARAMETERS} parameters.", "parameters_many")
    parameters: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        name, equals, value = pair.partition(b"=")
        if not name or not equals:
            raise _refused("Each parameter is name=value.", "form_syntax")
        key = _decode(name)
        # 3. None twice: two readers could take one each.
        if key in parameters and key not in REPEATABLE:
            raise _refused("A parameter is given more than once.", "parameter_twice")
        parameters[key] = (*parameters.get(key, ()), _decode(value))
    return parameters


def request_of(environ: Mapping[str, Any], exchange: Exchange, url: str, cap: int | None) -> Request:
    """The request as the authorization server takes it. `url` is the configured one of the listener; without
    a `cap` no form is read."""
    return Request(
        url=url + exchange.route,
        method=environ["REQUEST_METHOD"],
        parameters={} if cap is None else form_of(environ, cap),
        headers={
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        },
        now=exchange.now,
        request_id=exchange.request_id,
        source=exchange.source,
        certificate=peer_certificate(environ),
    )


def peer_certificate(environ: Mapping[str, Any]) -> bytes | None:
    """DER of the certificate that the peer's TLS handshake proved; None where none was asked for."""
    sock = environ.get("gunicorn.socket")
    if not isinstance(sock, ssl.SSLSocket) or sock.context.verify_mode is not ssl.CERT_REQUIRED:
        return None
    return sock.getpeercert(True)


def granted(answer: Answer, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an answer."""
    body = b"" if answer.members is None else dump_json(answer.members)
    media_type = TEXT if answer.members is None else JSON
    return 200, _headers(request_id, answer.headers, media_type, length=len(body)), body


def refused(error: OAuthError, request_id: str, *, authorization: bool) -> tuple[int, Headers, bytes]:
    """The same of a refusal; `authorization` says that the client used that header (RFC 6749, section
    5.2)."""
    told = error.body()
    told["error_description"] = _NOT_IN_DESCRIPTION.sub("'", told["error_description"])
    body = dump_json(told)
    headers = _headers(request_id, error.headers, JSON, length=len(body))
    named = {name.lower() for name, _ in headers}
    if error.status == 401 and authorization and "www-authenticate" not in named:
        headers.append(("WWW-Authenticate", f'Bearer error="{error.error}"'))
    return error.status, headers, body


def _headers(request_id: str, more: Mapping[str, str], media_type: str, *, length: int) -> Headers:
    # Pragma: RFC 6749, section 5.1, for caches of another age.
    return [*headers_of(request_id, media_type, length=length), ("Pragma", "no-cache"), *more.items()]


def _decode(text: bytes) -> str:
    if _PLUS_OR_PLAIN.fullmatch(text) is None:
        raise _refused("The form is not percent-encoded as it must be.", "form_syntax")
    try:
        decoded = unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("The form is not UTF-8.", "form_syntax") from None
    if _UNPRINTABLE.search(decoded) is not None:
        raise _refused("A parameter holds control characters.", "form_syntax")
    return decoded


def _refused(description: str, cause: str) -> OAuthError:
    return OAuthError("invalid_request", description, cause=cause)
