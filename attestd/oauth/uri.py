"""Do these two URIs name the same endpoint?

For `htu` (RFC 9449, section 4.3) and the `aud` of a Workload Proof Token: compared after the normalisation of
RFC 3986, sections 6.2.2 and 6.2.3, without query and fragment. What differs beyond that differs: a trailing
slash or dot, the case of the path.
"""

import re
from functools import lru_cache
from urllib.parse import urlsplit

from attestd.oauth.errors import TokenError

_DEFAULT_PORTS = {"https": 443, "http": 80}
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_SHAPE = re.compile(r"[!-~]{1,2048}")


@lru_cache(256)  # the same few endpoints, over and over
def normalise(uri: str) -> str:
    """The one spelling of an absolute http or https URI; TokenError `uri` when it is none."""
    if _SHAPE.fullmatch(uri) is None or "\\" in uri:
        raise TokenError("uri", "a URI is printable ASCII without spaces")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise TokenError("uri", "the URI cannot be read") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise TokenError("uri", "the URI is http or https, with a host and without a user")
    # 6.2.2.1: scheme and host are lower-case (`hostname` is). 6.2.3: no default port, no empty path.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        host = f"{host}:{port}"
    return f"{parts.scheme}://{host}{_path(parts.path)}"


def same(uri: str, expected: str) -> bool:
    """Whether they name the same endpoint. TokenError `uri` when one of them is no URI."""
    return normalise(uri) == normalise(expected)


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
