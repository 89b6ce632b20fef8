"""How is a document fetched from somebody else's server without becoming their tool?

Only for URLs that an operator configured. The name is resolved once, every address that it has is judged, and
the connection goes to one that was judged: a name that answers otherwise a moment later (DNS rebinding) leads
nowhere. No redirects, no proxies, no cookies, no compression; size and time are bounded as a whole.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from attestd.addresses import is_loopback

MAX_BYTES: Final = 256 * 1024
SECONDS: Final = 4.0
"""For everything: the name, the connection, the handshake and the last byte."""

_EMBEDDING: Final = tuple(
    ipaddress.IPv6Network(net)
    for net in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")
)
"""IPv6 networks whose addresses are IPv4 addresses in disguise (compatible, translated, NAT64, 6to4)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Unfetched(Exception):
    """There is no document; the text says why, and quotes nothing that the server sent."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a URL leads: compared as a whole, so that one origin is never taken for another."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """The origin of an absolute http(s) URL; Unfetched for anything else, and for a user or a fragment in
    it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Unfetched("the URL is none") from None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not plain or parts.scheme not in ("https", "http") or not parts.hostname:
        raise Unfetched("the URL is not an absolute one of https")
    if "@" in parts.netloc or "#" in url:
        raise Unfetched("the URL names a user or has a fragment")
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def fetch(url: str, *, allow_private: bool = False, context: ssl.SSLContext | None = None) -> bytes:
    """The body of a 200 answer. Unfetched otherwise.

    https alone; http only to this machine. Addresses of this machine and of private networks need
    `allow_private`. `context` replaces the system's certificate authorities.
    """
    origin = origin_of(url)
    if origin.scheme == "http" and not is_loopback(origin.host):
        raise Unfetched("http is for loopback only")
    waiting = _Fetching(urlsplit(url), origin, allow_private, context)
    waiting.start()
    waiting.join(SECONDS)
    waiting.give_up()
    if waiting.body is None:
        raise Unfetched(waiting.why)
    return waiting.body


def permitted(address: Address) -> bool:
    """Is this an address of the public internet?"""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return permitted(address.ipv4_mapped)
        # Site-local addresses (fec0::/10) are private, though `is_global` does not know it.
        local = address.scope_id is not None or address.is_site_local
        if local or any(address in net for net in _EMBEDDING):
            return False
    return address.is_global and not address.is_multicast


class _Fetching(threading.Thread):
    """One fetch, in a thread of its own so that nothing in it, the resolver included, can take longer."""

    def __init__(
        self, parts: SplitResult, origin: Origin, allow_private: bool, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(name="fetch", daemon=True)
        self.body: bytes | None = None
        self.why = "the server did not answer in time"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._origin = origin
        self._allow_private = allow_private
        self._context = context
        self._sock: socket.socket | None = None
        self._over = False

    def run(self) -> None:
        try:
            body = self._get(self._connect())
        except Unfetched as error:
            self.why = str(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.why = f"the server cannot be reached: {type(error).__name__}"
        else:
            self.body = body
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Close what is open: a server that still talks is heard no more."""
        self._over = True
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _connect(self) -> socket.socket:
        address = self._resolve()
        sock = socket.create_connection((str(address), self._origin.port), SECONDS)
        self._sock = sock
        if self._origin.scheme == "https":
            context = self._context or ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=self._origin.host)
            self._sock = sock
        if self._over:
            raise Unfetched(self.why)
        return sock

    def _resolve(self) -> Address:
        found = socket.getaddrinfo(self._origin.host, self._origin.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        if not self._allow_private and not all(permitted(address) for address in addresses):
            raise Unfetched("its name leads to this machine or into a private network (allow_private)")
        if self._origin.scheme == "http" and not all(address.is_loopback for address in addresses):
            raise Unfetched("http is for loopback only")
        return addresses[0]

    def _get(self, sock: socket.socket) -> bytes:
        connection = http.client.HTTPConnection(self._origin.host, self._origin.port)
        connection.sock = sock
        connection.request("GET", self._target, headers={"Accept": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Unfetched(f"the server answered {answer.status}, and only 200 is followed")
        if answer.getheader("Content-Encoding", "identity").lower() != "identity":
            raise Unfetched("the server compressed what was not asked for compressed")
        body = answer.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise Unfetched(f"the document has more than {MAX_BYTES} bytes")
        return body
