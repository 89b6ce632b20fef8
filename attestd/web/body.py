"""What did the client send, before anyone looks into it?"""

import re
from collections.abc import Mapping
from typing import Any

from attestd.wire import Problem

# RFC 9110, 8.3.1: parameters may be quoted and are compared without case.
_JSON = re.compile(r'application/json(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?', re.IGNORECASE | re.ASCII)


def json_bytes(environ: Mapping[str, Any], cap: int) -> bytes:
    """The body, at most `cap` bytes of it, said to be JSON and not compressed; Problem otherwise."""
    # 1. Its size, before it is read.
    check_size(environ, cap)
    # 2. Its type and coding, before it is believed.
    content_type = environ.get("CONTENT_TYPE") or ""
    if content_type != "application/json" and _JSON.fullmatch(content_type) is None:
        raise Problem("unsupported_media_type", "Send Content-Type: application/json.", cause="content_type")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        detail = "Send the body as it is, without a Content-Encoding."
        raise Problem("unsupported_media_type", detail, cause="content_encoding")
    # 3. What is really there.
    return read_body(environ, cap)


def check_size(environ: Mapping[str, Any], cap: int) -> None:
    """Problem `too_large` for a body that is said to have more than `cap` bytes."""
    declared = environ.get("CONTENT_LENGTH") or ""
    if declared and (not declared.isdecimal() or int(declared) > cap):
        raise _too_large(cap)


def read_body(environ: Mapping[str, Any], cap: int) -> bytes:
    """The body after `check_size`; with chunks nothing was declared, and only now its size is known."""
    declared = environ.get("CONTENT_LENGTH") or ""
    if declared:
        raw = environ["wsgi.input"].read(int(declared))
    else:
        raw = environ["wsgi.input"].read(cap + 1) if environ.get("wsgi.input_terminated") else b""
    if len(raw) > cap:
        raise _too_large(cap)
    return bytes(raw)


def _too_large(cap: int) -> Problem:
    return Problem("too_large", f"This path takes bodies of at most {cap} bytes.", cause="body_cap")
