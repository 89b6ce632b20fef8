"""Is this token to end now? (RFC 7009)

A client ends its own tokens, and with them everything that was made from them.
"""

from attestd.oauth.account import client_event, mark_recorded
from attestd.oauth.answer import Answer
from attestd.oauth.client.choose import authenticate
from attestd.oauth.client.client import Client
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.record import spend_all
from attestd.oauth.request import Request
from attestd.oauth.server import AuthorizationServer
from attestd.store import audit, tokens
from attestd.store.engine import Transaction


def revoke(server: AuthorizationServer, request: Request) -> Answer:
    """An unknown or expired token is answered like one that ends now (section 2.2). OAuthError
    `invalid_client`, `invalid_request`, or `invalid_grant` for a token of another client."""
    service, now = server.service, request.now
    client = authenticate(service, request)
    service.limits.admit_device(client.device.device_id, now=now)
    token_id = _token_id(server, request.one("token") or "", now=now)
    signer = service.audit_signer(now)

    def end(tx: Transaction) -> OAuthError | None:
        error = spend_all(tx, client.spends, now=now) or _check(tx, request, client, token_id)
        ended = 0 if error or token_id is None else tokens.revoke(tx, token_id, "revoked_by_client", now)
        details = {"revoked": token_id, "ended": ended}
        event = client_event(client, request, details, error=error)
        audit.append(tx, signer, event, chain=client.device.device_id, now=now)
        return error

    error = service.store.write(end)
    if error is not None:
        mark_recorded(error, client)
        raise error
    return Answer(None, device_id=client.device.device_id)


def _token_id(server: AuthorizationServer, token: str, *, now: int) -> str | None:
    """None for what is no living token of ours. `token_type_hint` helps nobody: there is one kind of
    token."""
    try:
        return server.tokens.read(server.service, token, now=now).token_id()
    except TokenError:
        return None


def _check(tx: Transaction, request: Request, client: Client, token_id: str | None) -> OAuthError | None:
    if request.one("token") is None:
        return OAuthError("invalid_request", "token is needed.", cause="token_missing")
    kept = None if token_id is None else tokens.get(tx, token_id)
    if kept is not None and kept.client_id != client.client_id:
        # RFC 7009, section 2.1: the client is told, and nothing ends.
        return OAuthError("invalid_grant", "The token is another client's.", cause="token_of_another")
    return None
