"""How does one request on a socket become one call of the application, and its answer bytes again?

Gunicorn's strict parser judges the head. The body is whole already: nothing here waits for a client.
"""

import io
import sys
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

from attestd.web.answers import Headers
from attestd.web.connection import Connection
from attestd.web.framing import RawRequest
from attestd.wire import Problem

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_DETAIL: Final = "The request's head is not HTTP/1.1 as it is taken here."


def parse_head(raw: RawRequest, connection: Connection, settings: Any) -> Request:
    """Gunicorn's reading of the head; Problem `malformed` if it refuses it, or frames the body otherwise."""
    try:
        parsed = next(RequestParser(settings, iter([raw.head]), (connection.client, 0)))
    except (ParseException, OSError, StopIteration) as error:
        # What it says quotes the client; it is for the log alone.
        raise Problem("malformed", _DETAIL, cause=f"http_{type(error).__name__.lower()}") from error
    reader = parsed.body.reader
    if raw.chunked:
        agreed = isinstance(reader, ChunkedReader)
    else:
        agreed = isinstance(reader, LengthReader) and reader.length == len(raw.body)
    if not agreed or not any(name == "HOST" for name, _ in parsed.headers):
        raise Problem("malformed", _DETAIL, cause="http_framing")
    return parsed


def environ_of(parsed: Request, raw: RawRequest, connection: Connection) -> dict[str, Any]:
    """PEP 3333. Of what a client sends only headers get in, each under HTTP_ but its type and length."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": parsed.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(parsed.path).decode("latin-1"),
        "QUERY_STRING": parsed.query,
        "RAW_URI": parsed.uri,
        "SERVER_PROTOCOL": f"HTTP/{parsed.version[0]}.{parsed.version[1]}",
        "SERVER_NAME": connection.listener[0],
        "SERVER_PORT": str(connection.listener[1]),
        "REMOTE_ADDR": connection.client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if connection.secure else "http",
        "wsgi.input": io.BytesIO(raw.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "gunicorn.socket": connection.sock,
    }
    for name, value in parsed.headers:
        if name in ("CONTENT-TYPE", "CONTENT-LENGTH"):
            environ[name.replace("-", "_")] = value
        else:
            key = "HTTP_" + name.replace("-", "_")
            environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def call(application: Application, environ: dict[str, Any]) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the application's answer."""
    started: list[tuple[int, Headers]] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
        started[:] = [(int(status[:3]), headers)]

    parts = application(environ, start_response)
    try:
        body = b"".join(parts)
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()
    status, headers = started[0]
    return status, headers, body


def encode(status: int, headers: Headers, body: bytes, *, keep: bool) -> bytes:
    """The answer's bytes, with the date and whether the connection stays; no word on the software."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"Date: {_date()}"]
    lines.append("Connection: keep-alive" if keep else "Connection: close")
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1:
        raise ValueError("a header holds a line break")
    return head.encode("latin-1") + b"\r\n\r\n" + body


_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_last_date: tuple[int, str] = (0, "")


def _phrase(status: int) -> str:
    return _PHRASES.get(status, "")


def _date() -> str:
    global _last_date
    second = int(time.time())
    if _last_date[0] != second:
        _last_date = (second, formatdate(second, usegmt=True))
    return _last_date[1]
