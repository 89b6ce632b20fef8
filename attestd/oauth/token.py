"""What does an agent get at the token endpoint? One request, from parameters to an access token.

identify   1  a grant type that is known; the client, proven        client, grants     401, 400
ask        2  on whose behalf, made from what                       grants             400
narrow     3  nothing wider, longer or deeper than its parents      narrowing          400
bind       4  to the key of the credential that authenticated                          400
sign       5  with everything that it rests on                      issue
record     6  proofs spent, all as judged, token and audit kept     store, one transaction
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attestd.issue.statement import token_id
from attestd.oauth.account import refuse_client, refused_event
from attestd.oauth.answer import Answer
from attestd.oauth.client.client import Client
from attestd.oauth.draft import Draft, narrow
from attestd.oauth.errors import OAuthError
from attestd.oauth.grants import client_credentials, jwt_bearer, token_exchange
from attestd.oauth.grants.asked import Asked
from attestd.oauth.record import record_token
from attestd.oauth.request import Request
from attestd.oauth.server import AuthorizationServer


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant type: who asks, and for what."""

    identify: Callable[[AuthorizationServer, Request], Client]
    ask: Callable[[AuthorizationServer, Request, Client], Asked]


GRANTS: Mapping[str, Grant] = {
    client_credentials.GRANT_TYPE: Grant(client_credentials.identify, client_credentials.ask),
    jwt_bearer.GRANT_TYPE: Grant(jwt_bearer.identify, jwt_bearer.ask),
    token_exchange.GRANT_TYPE: Grant(token_exchange.identify, token_exchange.ask),
}


def token(server: AuthorizationServer, request: Request) -> Answer:
    """RFC 6749, section 5.1; or an OAuthError, and nothing."""
    grant_type = request.one("grant_type")  # 1
    grant = GRANTS.get(grant_type or "")
    if grant_type is None or grant is None:
        raise _unknown(grant_type)
    client = grant.identify(server, request)
    server.service.limits.admit_device(client.device.device_id, now=request.now)
    draft, signed = _grant(server, request, grant, client, grant_type)
    return Answer(_members(draft, signed), device_id=client.device.device_id)


def _grant(
    server: AuthorizationServer, request: Request, grant: Grant, client: Client, grant_type: str
) -> tuple[Draft, str]:
    """Whatever is refused from here on is refused to a proven client: on its device's record."""
    service, asked = server.service, None
    try:
        asked = grant.ask(server, request, client)  # 2
        draft = narrow(service, request, asked, token_id=token_id(secrets.token_bytes(16)))  # 3, 4
        signer = service.keyring.at(request.now).signer("jwt")
        signed = draft.sign(signer, issuer=server.issuer)  # 5
        record_token(service, request, draft, kid=signer.kid)  # 6
    except OAuthError as error:
        if not error.recorded:
            event = refused_event(client, request, error, asked, grant_type=grant_type)
            refuse_client(service, client, request, error, event)
        raise
    return draft, signed


def _members(draft: Draft, signed: str) -> dict[str, Any]:
    """What RFC 6749, RFC 9449, RFC 9396 and RFC 8693 have the answer say."""
    members: dict[str, Any] = {
        "access_token": signed,
        "token_type": draft.token_type,
        "expires_in": (draft.token.expires_at - draft.token.issued_at) // 1000,
    }
    if draft.token.scope:  # a scope has one token at least: RFC 6749, section 3.3
        members["scope"] = draft.token.scope
    if draft.details:
        members["authorization_details"] = [dict(detail) for detail in draft.details]
    if draft.asked.issued_token_type is not None:
        members["issued_token_type"] = draft.asked.issued_token_type
    return members


def _unknown(grant_type: str | None) -> OAuthError:
    if grant_type is None:
        return OAuthError("invalid_request", "grant_type is needed.", cause="grant_type")
    return OAuthError(
        "unsupported_grant_type", f"The grant types are {', '.join(GRANTS)}.", cause="grant_type"
    )
