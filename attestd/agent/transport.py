"""How does the agent talk to its server? One request, one answer, both bounded, and nothing that the server
chooses.

TLS always, plain HTTP to the machine itself only. A redirect is refused, because a body that proves something
must go nowhere but to the server that it names. The library underneath keeps no cookies and reads no proxy
settings.
"""

import http.client
import io
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from attestd.addresses import url_fault
from attestd.agent.connecting import connect
from attestd.agent.errors import Misconfigured, Refusal, Unreachable, plain
from attestd.wire import Problem, load_json

STEP_SECONDS = 30.0
"""For connecting, and without hearing anything."""
ANSWER_LIMIT = 1 << 20
"""Bytes of an answer; the largest honest one has 16 certificates and 16 sealed keys."""
WIRE_LIMIT = ANSWER_LIMIT + (1 << 18)
"""Bytes that are read for one, whatever part of it they say that they are."""
RETRY_LIMIT = 300
"""Seconds; whatever a server asks for, the agent comes back after this."""
NONCE_LIMIT = 512
"""Characters of a nonce that a server may have us sign."""
_NONCES = ("OAuth-Client-Attestation-Challenge", "DPoP-Nonce")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service is, exactly as the operator wrote it: the device signs this URL into every request.

    `ca` is the only authority trusted if given, else the system's are. `patience`: seconds for a whole
    answer; `end`: when, on the monotonic clock, the last of them must be there.
    """

    url: str
    ca: Path | None = None
    patience: float = 60.0
    end: float = inf

    def __post_init__(self) -> None:
        fault = url_fault(self.url)
        if fault is not None:
            raise Misconfigured(f"{self.url}: {fault}")

    def within(self, seconds: float) -> Self:
        """The same, for requests that are all over after so many seconds from now, however many there are."""
        return self.ending(time.monotonic() + seconds)

    def ending(self, end: float) -> Self:
        """The same, for requests that are all over at this time of the monotonic clock."""
        return replace(self, end=min(self.end, end))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's members; Refusal for a problem, Unreachable when there is no answer of this
        protocol."""
        raw = json.dumps(body, separators=(",", ":")).encode()
        return self._exchange("POST", path, raw, {"Content-Type": "application/json"})

    def post_form(
        self, path: str, parameters: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """The same for an endpoint of OAuth, which takes a form and says no in its own words."""
        raw = urlencode(parameters).encode()
        return self._exchange(
            "POST", path, raw, {"Content-Type": "application/x-www-form-urlencoded", **headers}
        )

    def get(self, path: str) -> dict[str, Any]:
        """A published document; errors as for `post`."""
        return self._exchange("GET", path, None, {})

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        patience = min(self.patience, self.end - time.monotonic())
        if patience <= 0:
            raise Unreachable(f"{self.url} takes too long for what is asked of it; trying again later")
        connection = self._connection()
        try:
            with reached(self.url, connection.context, patience=patience) as connected:
                connection.sock = connected
                prefix = urlsplit(self.url).path
                connection.request(method, prefix + path, body, {"Accept": "application/json", **headers})
                answer = connection.getresponse()
                raw = answer.read(ANSWER_LIMIT + 1)
        except ssl.SSLCertVerificationError as error:
            why = f"its certificate is not trusted: {error.verify_message}"
            raise Unreachable(f"{self.url}: {why}; name its CA with --ca FILE") from None
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            why = plain(error) or type(error).__name__
            raise Unreachable(f"{self.url} does not answer: {why}") from None
        finally:
            connection.close()
        return _read(self.url, answer, raw)

    def _connection(self) -> "BoundedConnection":
        parts = urlsplit(self.url)
        context = self._context() if parts.scheme == "https" else None
        return BoundedConnection(parts.hostname or "", parts.port, context)

    def _context(self) -> ssl.SSLContext:
        try:
            return _current(self.ca)
        except (OSError, ssl.SSLError):
            raise Misconfigured(
                f"{self.ca} has no certificate; name a PEM file with the server's CA"
            ) from None


class BoundedConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a socket that it is given; it names its port where that is not the scheme's own."""

    def __init__(self, host: str, port: int | None, context: ssl.SSLContext | None) -> None:
        self.default_port = http.client.HTTP_PORT if context is None else http.client.HTTPS_PORT
        super().__init__(host, port)
        self.auto_open = 0
        self.response_class = _Answer
        self.context = context


class _Answer(http.client.HTTPResponse):
    """One of which no more is read than `WIRE_LIMIT`: interim answers and trailers have no bound of their
    own."""

    def __init__(self, sock: socket.socket, *args: Any, **given: Any) -> None:
        super().__init__(sock, *args, **given)
        self.fp.close()
        self.fp = io.BufferedReader(_Bounded(sock.makefile("rb", buffering=0), WIRE_LIMIT))


class _Bounded(io.RawIOBase):
    """What may still be read of this; OSError beyond."""

    def __init__(self, source: io.RawIOBase, left: int) -> None:
        self._source, self._left = source, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._source.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise OSError(f"it sends more than {WIRE_LIMIT} bytes for one answer")
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


@contextmanager
def reached(url: str, context: ssl.SSLContext | None, *, patience: float) -> Iterator[socket.socket]:
    """A connection to where the URL points, over TLS as `context` says, the handshake done; hung up when
    `patience` seconds are over, whatever is going on (looking the name up has the system's own bounds).
    OSError."""
    end = time.monotonic() + patience
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    connected = connect(host, port, end=end, longest=STEP_SECONDS)
    try:
        connected.settimeout(min(STEP_SECONDS, patience))
        if context is not None:
            connected = context.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        with _hung_up_after(max(0.0, end - time.monotonic()), connected, patience=patience):
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            yield connected
    finally:
        connected.close()


def _current(ca: Path | None) -> ssl.SSLContext:
    """What trusts this file's authorities, or else the system's, as they are now."""
    source = ca or ssl.get_default_verify_paths().cafile
    version = None
    if source is not None:
        found = os.stat(source)
        version = (found.st_ino, found.st_size, found.st_mtime_ns)
    return _context(ca, version)


@lru_cache(maxsize=2)
def _context(ca: Path | None, version: object) -> ssl.SSLContext:
    # Kept for a version of the file: reading all authorities of a system takes longer than a whole round.
    return trusting(cafile=None if ca is None else str(ca))


def trusting(*, cafile: str | None = None, pem: str | None = None) -> ssl.SSLContext:
    """What trusts the authorities of this file or these PEM certificates alone, and the system's without
    either. OSError or ssl.SSLError for what holds none."""
    context = ssl.create_default_context(cafile=cafile, cadata=pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cafile is not None or pem is not None:
        # What was named is what is trusted, also where it is an intermediate or the server's own certificate.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@contextmanager
def _hung_up_after(seconds: float, connected: socket.socket, *, patience: float) -> Iterator[None]:
    """However slowly the other side drips its answer, it has this long for all of it: what connecting left of
    `patience`. TimeoutError."""
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError):
            # Past TLS: its own shutdown would wait for the other side.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"no whole answer within {patience:g} seconds")


def _read(url: str, answer: http.client.HTTPResponse, raw: bytes) -> dict[str, Any]:
    if len(raw) > ANSWER_LIMIT:
        raise Unreachable(f"{url} answered with more than {ANSWER_LIMIT} bytes")
    if 300 <= answer.status < 400:
        raise Unreachable(
            f"{url} answered with a redirect, which is not followed; name the service's own address"
        )
    retry_after = _retry_after(answer.headers.get("Retry-After"))
    try:
        # As strictly as the service reads what it is sent: one meaning, bounded depth and number of values.
        members = load_json(raw)
    except Problem:
        told = f"{url} answered {answer.status} with something that is not JSON of attestd's; is it attestd?"
        raise Unreachable(told, retry_after=retry_after) from None
    if answer.status >= 500:
        why = members.get("detail") or members.get("error_description") or ""
        raise Unreachable(f"{url} cannot serve now: {answer.status} {plain(why)}", retry_after=retry_after)
    if answer.status >= 400:
        nonce = next((answer.headers[name] for name in _NONCES if name in answer.headers), None)
        raise Refusal(answer.status, members, retry_after, good_nonce(nonce))
    return members


def good_nonce(value: object) -> str | None:
    """A nonce that a server gave (RFC 9449, section 8.1), to be signed as it is; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= NONCE_LIMIT:
        return None
    return value if value.isascii() and value.isprintable() and not set(value) & set(' "\\') else None


def _retry_after(value: str | None) -> int | None:
    """Whole seconds within our own bound; anything else is as if nothing had been said."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 9:
        return None
    return min(int(value), RETRY_LIMIT)


def hostname() -> str | None:
    """What the machine calls itself, if it can be said in ASCII; for display by the operator only."""
    name = socket.gethostname()[:253]
    return name if name and name.isascii() and name.isprintable() else None
