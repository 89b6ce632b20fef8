"""How does the authorization server say no?

One class for what the RFCs name and one for a token that is not what it must be; whoever asked for the token
knows which error of the RFCs that makes.
"""

from collections.abc import Mapping
from types import MappingProxyType

STATUS: Mapping[str, int] = {
    # RFC 6749, section 5.2
    "invalid_request": 400,
    "invalid_client": 401,
    "invalid_grant": 400,
    "unauthorized_client": 400,
    "unsupported_grant_type": 400,
    "invalid_scope": 400,
    # RFC 8707, section 2; RFC 9396, section 5
    "invalid_target": 400,
    "invalid_authorization_details": 400,
    # RFC 9449, sections 5 and 8
    "invalid_dpop_proof": 400,
    "use_dpop_nonce": 400,
    # draft-ietf-oauth-attestation-based-client-auth, section 7.4
    "use_attestation_challenge": 400,
    "use_fresh_attestation": 400,
    "invalid_client_attestation": 400,
    # RFC 6750, section 3.1; RFC 7009, section 2.2.1
    "invalid_token": 401,
    "insufficient_scope": 403,
    "unsupported_token_type": 400,
    # RFC 6749, section 4.1.2.1
    "temporarily_unavailable": 503,
}
"""Every error that an answer may carry, with the status that goes with it where nothing else is said."""

ONE_ANSWER: Mapping[str, str] = {
    "invalid_client": "The client is not known, or did not prove that it is this client."
}
"""Errors whose body is the same for every cause, so that it teaches nothing; the audit log has more."""


class OAuthError(Exception):
    """A request is refused; one of these becomes one answer (RFC 6749, section 5.2) and one audit record.

    `cause` is the finer word for the audit log and never leaves the service. `recorded` says that whoever
    raised it has written its audit record already; `client_id` and `device_id` are set only where they are
    proven.
    """

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int | None = None,
        cause: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = STATUS[error] if status is None else status
        self.cause = cause
        self.headers = dict(headers)
        self.recorded = False
        self.client_id: str | None = None
        self.device_id: str | None = None

    def body(self) -> dict[str, str]:
        """The members of RFC 6749, section 5.2."""
        return {"error": self.error, "error_description": ONE_ANSWER.get(self.error, self.description)}


class TokenError(Exception):
    """A token that came in is not what it must be; `reason` is the audit word, `detail` says what was
    expected. Never an answer by itself: who asked for the token says which error of the RFCs it is."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
