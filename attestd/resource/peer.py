"""How is the issuer asked over HTTP?

Only at URLs that the application's operator configured: https, or http to this machine. Connections are kept.
No redirects, no proxies, no compression; size and time are bounded.
"""

import http.client
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlencode, urlsplit

from attestd.resource.uri import require_safe

MAX_BYTES: Final = 256 * 1024
_KEPT: Final = 16
_CLOSED: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What a connection raises that its other end closed while it lay idle."""
_FORM: Final = "application/x-www-form-urlencoded"

Form = Mapping[str, str]


class Peer:
    """One URL of the issuer's. Thread-safe: a connection is used by one thread at a time."""

    def __init__(self, url: str, *, seconds: float, context: Callable[[], ssl.SSLContext]) -> None:
        """ValueError for a URL that is not safe to ask. `context` is asked at each new connection, so that
        files of certificates may change under it."""
        self._parts: SplitResult = urlsplit(require_safe(url, what="the issuer's URL"))
        self._seconds = seconds
        self._context = context
        self._idle: deque[http.client.HTTPConnection] = deque(maxlen=_KEPT)

    def get(self) -> bytes:
        """The body of a 200 answer; OSError otherwise."""
        return self._ask("GET", lambda: None)

    def post(self, form: Callable[[], Form]) -> bytes:
        """The same for a form. It is made for each attempt: what is in it may be good for one only."""
        return self._ask("POST", lambda: urlencode(form()))

    def _ask(self, method: str, body: Callable[[], str | None]) -> bytes:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._exchange(self._connect(), method, body())
        try:
            return self._exchange(connection, method, body())
        except _CLOSED:
            # Once more, on a new one.
            return self._exchange(self._connect(), method, body())

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=self._context())
        return http.client.HTTPConnection(host, port, timeout=self._seconds)

    def _exchange(self, connection: http.client.HTTPConnection, method: str, body: str | None) -> bytes:
        headers = {"Accept": "application/json"} | ({"Content-Type": _FORM} if body is not None else {})
        try:
            connection.request(method, self._parts.path or "/", body, headers)
            answer = connection.getresponse()
            raw = self._read(answer)
            answer.close()  # of the answer alone; the connection is ready for the next
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise error if isinstance(error, OSError) else OSError(str(error)) from None
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        if answer.status != 200:
            raise OSError(f"the issuer answered {answer.status}, and only 200 is an answer")
        return raw

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        """Everything, unless it is too much or takes too long as a whole."""
        ends, raw = time.monotonic() + self._seconds, b""
        while chunk := answer.read1(64 * 1024):
            raw += chunk
            if len(raw) > MAX_BYTES or time.monotonic() > ends:
                raise OSError("the issuer's answer is too long or too slow")
        return raw


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """What verifies the issuer: the system's authorities, or only those of a file."""
    return ssl.create_default_context(cafile=ca_file)
