"""What do the bytes of an answer hold, and until when may they be used?

Read, not verified: they come from this machine's own agent. ValueError for what is none of it.
"""

import json
from base64 import urlsafe_b64decode
from typing import Any

from cryptography import x509

_SEQUENCE = 0x30
_LAST = 253_402_300_800
"""Seconds: the year 10000, which no date of ours reaches."""


def split_certificates(raw: bytes) -> tuple[bytes, ...]:
    """Certificates in DER that stand one after the other (SPIFFE Workload API, section 5.1)."""
    found = []
    while raw:
        size = _size(raw)
        found.append(raw[:size])
        raw = raw[size:]
    return tuple(found)


def certificate_ends(der: bytes) -> int:
    """Milliseconds since the epoch."""
    return int(x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()) * 1000


def claims(token: str) -> dict[str, Any]:
    """The payload of a JWS in its compact form."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("a token has three parts")
    try:
        payload = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except RecursionError:
        raise ValueError("a token's payload is nested without end") from None
    if not isinstance(payload, dict):
        raise ValueError("a token's payload is an object")
    return payload


def token_ends(token: str) -> int:
    """Milliseconds since the epoch."""
    ends: Any = claims(token).get("exp")
    # Neither NaN nor Infinity, which json reads, is between two numbers.
    if type(ends) not in (int, float) or not 0 <= ends < _LAST:
        raise ValueError("a token without an end")
    return int(ends * 1000)


def token_audiences(token: str) -> tuple[str, ...]:
    """`aud`, one or several."""
    told = claims(token).get("aud", [])
    return (told,) if isinstance(told, str) else tuple(str(one) for one in told)


def _size(raw: bytes) -> int:
    """Of the element that begins here, with its head (X.690, sections 8.1.2 and 8.1.3)."""
    if len(raw) < 2 or raw[0] != _SEQUENCE:
        raise ValueError("no certificate begins here")
    if raw[1] < 0x80:
        size = 2 + raw[1]
    else:
        count = raw[1] & 0x7F
        if not 1 <= count <= 4:
            raise ValueError("a certificate of no definite size")
        size = 2 + count + int.from_bytes(raw[2 : 2 + count], "big")
    if size > len(raw):
        raise ValueError("a certificate is cut off")
    return size
