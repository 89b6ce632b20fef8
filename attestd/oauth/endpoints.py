"""Which endpoints has the authorization server?"""

from collections.abc import Callable
from dataclasses import dataclass

from attestd.oauth import challenge
from attestd.oauth.answer import Answer
from attestd.oauth.errors import OAuthError
from attestd.oauth.introspect import introspect
from attestd.oauth.metadata import CHALLENGE_PATH, INTROSPECTION_PATH, REVOCATION_PATH, TOKEN_PATH
from attestd.oauth.request import Request
from attestd.oauth.revoke import revoke
from attestd.oauth.server import AuthorizationServer
from attestd.oauth.token import token
from attestd.store.audit import Event

Call = Callable[[AuthorizationServer, Request], Answer]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`POST path` with a form, or with nothing where `form` is false. `event` is what the audit calls it;
    `authentication` says in words what proves the caller."""

    path: str
    call: Call
    event: Event
    authentication: str
    summary: str
    form: bool = True


def offer_challenge(server: AuthorizationServer, request: Request) -> Answer:
    """draft-ietf-oauth-attestation-based-client-auth, section 8.1. Writes nothing."""
    fresh = challenge.issue(server.service.challenges, now=request.now)
    return Answer({"attestation_challenge": fresh}, {challenge.NONCE_HEADER: fresh}, proven=False)


def nonced(call: Call) -> Call:
    """Whatever the answer is, the next DPoP proof's nonce comes with it (RFC 9449, section 8.2)."""

    def answered(server: AuthorizationServer, request: Request) -> Answer:
        fresh = challenge.issue(server.service.challenges, now=request.now)
        try:
            answer = call(server, request)
        except OAuthError as error:
            error.headers = {challenge.NONCE_HEADER: fresh, **error.headers}
            raise
        return answer.with_headers({challenge.NONCE_HEADER: fresh})

    return answered


_CLIENT = "an agent's attested credential: X.509-SVID, WIT, client attestation, assertion, or JWT-SVID"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(TOKEN_PATH, nonced(token), "token", _CLIENT, "Receive an access token."),
    Endpoint(REVOCATION_PATH, nonced(revoke), "token", _CLIENT, "End a token and what was made of it."),
    Endpoint(
        INTROSPECTION_PATH,
        introspect,
        "request",
        "a configured resource's key, or its X.509-SVID",
        "Learn whether a token is good now.",
    ),
    Endpoint(
        CHALLENGE_PATH,
        offer_challenge,
        "request",
        "none: a challenge is worth nothing without the client's key",
        "Receive a challenge for a client attestation's proof.",
        form=False,
    ),
)
