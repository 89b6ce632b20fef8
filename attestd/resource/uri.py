"""Do these two URIs name the same endpoint? (RFC 3986, 6.2.2 and 6.2.3, without query and fragment)"""

import re
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_PERCENT: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_SHAPE: Final = re.compile(r"[!-~]{1,4096}")
_LOOPBACK: Final = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")


def normalise(uri: str) -> str:
    """The one spelling of an absolute http or https URI; ValueError when it is none. A trailing slash or dot
    and the case of the path stay: what differs there is another endpoint."""
    if _SHAPE.fullmatch(uri) is None or "\\" in uri:
        raise ValueError("it is not printable ASCII without backslashes")
    parts = urlsplit(uri)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("it is not an absolute URI of https with a host and without a user")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.port is not None and parts.port != _DEFAULT_PORTS[parts.scheme]:
        host = f"{host}:{parts.port}"
    return f"{parts.scheme}://{host}{_path(parts.path)}"


def origin(uri: str) -> str:
    """Scheme, host and port alone; ValueError."""
    parts = urlsplit(normalise(uri))
    return f"{parts.scheme}://{parts.netloc}"


def require_safe(uri: str, *, what: str) -> str:
    """The URI of somebody who is asked or trusted: https, or http on this machine; ValueError otherwise."""
    normalise(uri)
    parts = urlsplit(uri)
    if "?" in uri or "#" in uri:
        raise ValueError(f"{what} has a query or a fragment")
    if parts.scheme != "https" and _LOOPBACK.fullmatch(parts.hostname or "") is None:
        raise ValueError(f"{what} is https; http is for loopback only")
    return uri


def _path(path: str) -> str:
    # 6.2.2.2: what needs no percent-encoding has none, and what has it is spelled in upper case.
    path = _PERCENT.sub(_decode_unreserved, path)
    # 6.2.2.3: without dot segments (RFC 3986, section 5.2.4).
    kept: list[str] = []
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments):
        if segment not in (".", ".."):
            kept.append(segment)
            continue
        if segment == ".." and kept:
            kept.pop()
        if position == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _decode_unreserved(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()
