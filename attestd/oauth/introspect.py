"""Is this access token good here and now? (RFC 7662)

Asked by a protected resource of tokens that are for it. Everything else is `{"active": false}` and nothing
more: unknown, expired, ended, another's, or resting on a machine that is no longer as it was.
"""

from typing import Any, Final

from attestd.oauth.answer import Answer
from attestd.oauth.claims import Claims
from attestd.oauth.descent import stands
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.record import spend_all
from attestd.oauth.request import Request
from attestd.oauth.resource_auth import Caller, check_credential
from attestd.oauth.server import AuthorizationServer
from attestd.service import Service
from attestd.store import meta
from attestd.store.engine import Transaction
from attestd.wire import Problem

INACTIVE: Final[dict[str, Any]] = {"active": False}


def introspect(server: AuthorizationServer, request: Request) -> Answer:
    """Writes nothing, unless the caller's assertion is to be spent; that a token was used is counted, and
    recorded afterwards. OAuthError `invalid_client` for a caller who is no resource, `invalid_request`
    without a token; Problem `unavailable` when the clock went back.
    """
    service = server.service
    # 1. Who asks.
    caller = server.resources.authenticate(service, request)
    text = request.one("token")
    # 2. What the token says, if we signed it.
    claims = _claims(server, caller, text or "", now=request.now)

    # 3. Whether it, everyone who passed it on, and the caller itself still are what they were.
    def look(tx: Transaction) -> bool:
        _check_clock(service, tx, now=request.now)
        check_credential(service, tx, caller, now=request.now)
        return claims is not None and stands(service, tx, claims.token_id(), now=request.now)

    def spend_and_look(tx: Transaction) -> bool | OAuthError:
        return spend_all(tx, caller.spends, now=request.now) or look(tx)

    active = service.store.write(spend_and_look) if caller.spends else service.store.read(look)
    if isinstance(active, OAuthError):
        raise active
    if text is None:
        raise OAuthError("invalid_request", "token is needed.", cause="token_missing")
    if not active or claims is None:
        return Answer(INACTIVE)
    service.calls.note(claims.token_id(), caller.resource.audience, now=request.now)
    return Answer(_members(claims))


def _check_clock(service: Service, tx: Transaction, *, now: int) -> None:
    """Problem `unavailable` while the clock is behind the highest time seen: what has expired would live
    again."""
    if now < meta.highest_time(tx) - service.config.limits.clock_skew * 1000:
        detail = "The service's clock went back; try again later."
        raise Problem("unavailable", detail, cause="clock_went_back")


def _claims(server: AuthorizationServer, caller: Caller, token: str, *, now: int) -> Claims | None:
    try:
        claims = server.tokens.read(server.service, token, now=now)
        return claims if caller.resource.audience in claims.audience() else None
    except TokenError:
        return None


def _members(claims: Claims) -> dict[str, Any]:
    """RFC 7662, section 2.2, with what RFC 8705, 8693 and 9396 add; all of it is in the signed token."""
    bound_to_key = "jkt" in claims.members.get("cnf", {})
    return {"active": True, "token_type": "DPoP" if bound_to_key else "Bearer", **claims.members}
