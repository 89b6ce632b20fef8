"""How does the agent talk to its server? One request, one answer, both bounded, and nothing that the server
chooses.

TLS always, plain HTTP to the machine itself only. A redirect is refused, because a body that proves something
must go nowhere but to the server that it names. The library underneath keeps no cookies and reads no proxy
settings.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attestd.addresses import is_loopback
from tpm.errors import DeviceError

TIMEOUT = 30.0
"""Seconds for each step of a request."""
ANSWER_LIMIT = 4 << 20
"""Bytes of an answer; the largest honest one has 16 certificates and 16 sealed keys."""
RETRY_LIMIT = 300
"""Seconds; whatever a server asks for, the agent comes back after this."""


class Unreachable(Exception):
    """The server did not answer, or not as this protocol does; trying again later may help."""


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """The server said no: the members of its problem document."""

    status: int
    problem: Mapping[str, Any]
    retry_after: int | None = None

    @property
    def code(self) -> str:
        """The wire code, or empty for an answer of another service."""
        code = self.problem.get("code", "")
        return code if isinstance(code, str) else ""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service is, exactly as the operator wrote it: the device signs this URL into every request."""

    url: str
    ca: Path | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise DeviceError(
                "server_url", f"{self.url} is no address of a service; write https://HOST[:PORT]"
            )
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise DeviceError(
                "server_url", f"{self.url} would be unencrypted; use https, http is for loopback only"
            )
        if self.url.endswith("/"):
            raise DeviceError(
                "server_url", f"{self.url} must not end with a slash; write it as the service does"
            )

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's members; Refusal for a problem, Unreachable when there is no answer of this protocol."""
        raw = json.dumps(body, separators=(",", ":")).encode()
        return self._exchange("POST", path, raw, {"Content-Type": "application/json"})

    def get(self, path: str) -> dict[str, Any]:
        """A published document; errors as for `post`."""
        return self._exchange("GET", path, None, {})

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        parts = urlsplit(self.url)
        connection = self._connection(parts.hostname or "", parts.port)
        try:
            connection.request(method, parts.path + path, body, {"Accept": "application/json", **headers})
            answer = connection.getresponse()
            raw = answer.read(ANSWER_LIMIT + 1)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"{self.url}: its certificate is not trusted: {error.verify_message}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        return _read(self.url, answer, raw)

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        if self.url.startswith("http://"):
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise DeviceError(
                "ca_unreadable", f"{self.ca}: {error}; name a PEM file with the server's CA"
            ) from None
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)


def _read(url: str, answer: http.client.HTTPResponse, raw: bytes) -> dict[str, Any]:
    if len(raw) > ANSWER_LIMIT:
        raise Unreachable(f"{url} answered with more than {ANSWER_LIMIT} bytes")
    if 300 <= answer.status < 400:
        raise Unreachable(
            f"{url} answered with a redirect, which is not followed; name the service's own address"
        )
    try:
        members = json.loads(raw)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise Unreachable(f"{url} answered {answer.status} with something that is not JSON; is it attestd?")
    if answer.status >= 500:
        raise Unreachable(f"{url} cannot serve now: {answer.status} {members.get('detail', '')}")
    if answer.status >= 400:
        raise Refusal(answer.status, members, _retry_after(answer.headers.get("Retry-After")))
    return members


def _retry_after(value: str | None) -> int | None:
    """Whole seconds within our own bound; anything else is as if nothing had been said."""
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 9:
        return None
    return min(int(value), RETRY_LIMIT)


def hostname() -> str | None:
    """What the machine calls itself, if it can be said in ASCII; for display by the operator only."""
    name = socket.gethostname()[:253]
    return name if name and name.isascii() and name.isprintable() else None
