"""Which request is this, for logs, metrics and the audit?"""

import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

KEY: Final = "attestd.exchange"
"""Where the WSGI environment holds it."""


@dataclass(slots=True)
class Exchange:
    """One request and what became of it.

    `request_id` is made here and never taken from a client. `source` is the peer's address, or the one that
    the proxy in front names. `now` is its arrival, in milliseconds. `route` is a path of the table or
    "unmatched": what a client made up never becomes a label. `device_id` is set only where it is proven.
    """

    request_id: str
    source: str
    now: int
    route: str = "unmatched"
    code: str = ""
    device_id: str | None = None

    @classmethod
    def begin(cls, source: str, *, now: int) -> "Exchange":
        return cls(secrets.token_hex(8), source, now)


def source_of(environ: Mapping[str, Any], *, behind_proxy: bool) -> str:
    """The client's address. Only the last hop of X-Forwarded-For was written by our own proxy."""
    peer = str(environ.get("REMOTE_ADDR", ""))
    if not behind_proxy:
        return peer
    named = str(environ.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip(" \t")
    return named if _is_address(named) else peer


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True
