"""Is this text a SPIFFE ID, and of which trust domain?

The rules are those of the SPIFFE-ID standard (section 2), in canonical form only: what we issue and what a
policy names is compared byte by byte, so the upper case that the standard lets a receiver fold is refused
here instead of folded.
"""

import re

MAX_LENGTH = 2048
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_SCHEME = "spiffe://"


def validate_trust_domain(name: str) -> None:
    """ValueError unless `name` is a trust domain: 1 to 255 of a-z, 0-9, dot, dash and underscore (no port,
    no user)."""
    if _TRUST_DOMAIN.fullmatch(name) is None:
        raise ValueError(
            "a trust domain is 1 to 255 lower-case letters, digits, dots, dashes and underscores"
        )


def validate_spiffe_id(text: str) -> None:
    """ValueError, with the broken rule, unless `text` is a SPIFFE ID; one without a path (a trust domain's
    own) is valid."""
    if not text.startswith(_SCHEME):
        raise ValueError("a SPIFFE ID begins with spiffe://")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a SPIFFE ID has at most {MAX_LENGTH} bytes")
    name, *segments = text.removeprefix(_SCHEME).split("/")
    validate_trust_domain(name)
    for segment in segments:
        if segment in (".", ".."):
            raise ValueError("the path of a SPIFFE ID has no dot segments")
        if _SEGMENT.fullmatch(segment) is None:
            raise ValueError(
                "each segment of a SPIFFE ID's path is one or more letters, digits, dots, dashes and "
                "underscores, and no slash ends it"
            )


def validate_workload_id(text: str) -> None:
    """ValueError unless `text` is a SPIFFE ID with a path: only those name a workload (X509-SVID standard,
    section 5.2)."""
    validate_spiffe_id(text)
    if text.count("/") < 3:
        raise ValueError("a workload's SPIFFE ID has a path; without one it names the trust domain")


def trust_domain_of(spiffe_id: str) -> str:
    """The trust domain's name, e.g. `example.org`; ValueError when `spiffe_id` is none."""
    validate_spiffe_id(spiffe_id)
    return spiffe_id.removeprefix(_SCHEME).partition("/")[0]
