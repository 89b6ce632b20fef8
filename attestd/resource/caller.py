"""Who is calling, on whose behalf, with which rights; or why is the request denied?"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Headers = tuple[tuple[str, str], ...]

STATUS: Final[Mapping[str, int]] = {
    # RFC 6750, section 3.1
    "invalid_request": 400,
    "invalid_token": 401,
    "insufficient_scope": 403,
    # RFC 9449, section 7.1
    "invalid_dpop_proof": 401,
    "use_dpop_nonce": 401,
    # no credentials at all; RFC 6750, section 3, names no error for it
    "unauthenticated": 401,
    # the issuer cannot be asked
    "temporarily_unavailable": 503,
}
"""Every way in which a request is denied."""

_TITLES: Final[Mapping[int, str]] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What came in, as the application's server saw it."""

    method: str
    path: str
    """As it was routed, percent-encoded or not, without query. Never taken from a header."""
    headers: Iterable[tuple[str, str]]
    """All of them, one pair for each line where the server tells them apart."""
    certificate: bytes | None = None
    """DER of the client's certificate, from the TLS layer and never from a header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An attested agent that may call now; comes from `Guard.check` alone."""

    agent: str
    """Its SPIFFE ID."""
    user: str | None
    """On whose behalf: the user's name at `user_issuer`; None where the agent acts for itself."""
    user_issuer: str | None
    actors: tuple[str, ...]
    """Who acts, the current one first (RFC 8693, `act`); only the first counts for decisions."""
    scopes: frozenset[str]
    assurance: str
    """How the TPM was told from an impostor: `ek_verified`, `allow_listed`, `first_use` or `emulated`."""
    policy: str
    """`name@version` of the policy that accepted the machine."""
    attestation: str
    """The attestation that it rests on; `attestd audit trace` finds it."""
    token_id: str
    expires_at: int
    """Seconds since the epoch."""
    authorization_details: tuple[Mapping[str, Any], ...] = ()
    """RFC 9396; what they say is the application's to judge."""


class Refused(Exception):
    """A part of the request is not what it must be; the guard makes a `Denied` of it. `error` is a key of
    `STATUS`, `detail` a sentence that quotes nothing of the request."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail


class Denied(Exception):
    """The whole answer to a request that may not pass."""

    def __init__(self, refused: Refused, headers: Headers) -> None:
        super().__init__(str(refused))
        self.error = refused.error
        self.detail = refused.detail
        self.status = STATUS[refused.error]
        self.headers = headers
        """`WWW-Authenticate` and its like; those of the body are not among them."""

    @property
    def problem(self) -> dict[str, Any]:
        """RFC 9457."""
        return {
            "type": f"urn:attestd:problem:{self.error}",
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": self.detail,
            "code": self.error,
        }

    def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, all headers, body."""
        body = json.dumps(self.problem).encode()
        own = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        return self.status, own + list(self.headers), body
