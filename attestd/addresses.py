"""Where can this service be reached: is an address loopback, is a listen address or our URL well written?"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PORT = re.compile(r"[0-9]{1,5}")
_URL = re.compile(r"https?://[a-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")


def is_loopback(host: str) -> bool:
    """Can only the machine itself reach this name or address? Names other than localhost are not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_wildcard(host: str) -> bool:
    """Does this listen on every interface, so that it cannot be the address that others use?"""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def join(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_listen(listen: str) -> tuple[str, int]:
    """HOST and PORT of "HOST:PORT" or "[IPv6]:PORT"; ValueError says what it needs."""
    host, colon, port = listen.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise ValueError('needs HOST:PORT with a port from 1 to 65535, like "127.0.0.1:8440"')
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError("needs an IPv6 address between the brackets") from None
    if not _HOST.fullmatch(host):
        raise ValueError('needs a host name or address; write IPv6 in brackets, like "[::1]:8440"')
    return host, int(port)


def url_fault(url: str) -> str | None:
    """What keeps this from being our address, which devices compare character by character, or None."""
    fault = _fault(url, example="https://attest.example.org")
    if fault is None and url.endswith("/"):
        return "it must not end with a slash"
    return fault


def issuer_fault(url: str) -> str | None:
    """What keeps this from being the issuer of an OpenID Provider, compared character by character, or None.

    Whether anybody answers there is not asked.
    """
    return _fault(url, example="https://login.example.org")


def _fault(url: str, *, example: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "that is not a URL"
    if parts.scheme.lower() not in ("http", "https") or not host:
        return f'it must be absolute, like "{example}"'
    if not _URL.fullmatch(url):
        return "write scheme and host in lower case, without user, query or fragment"
    if parts.scheme == "http" and not is_loopback(host):
        return "http is for loopback only; use https"
    return None


def is_private(host: str) -> bool:
    """Does this name or address lead to this machine or into a private network, as far as it says itself?

    Names other than localhost are not resolved: who connects must look at the address that it gets.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return is_loopback(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return not (mapped or address).is_global
