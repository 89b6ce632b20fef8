"""An agent asks on somebody's behalf (RFC 8693): on whose, who acted before, and how much is left of it?

The subject token is a user's, from a trusted OpenID Provider, or one of our own access tokens, whose subject
and actors go on. The actor is always the client that authenticated: it becomes the outermost `act`. Nobody is
impersonated.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestd.oauth.client import choose
from attestd.oauth.client.client import Client
from attestd.oauth.descent import depth_of, live_line
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.grants.actor_token import check_actor_token
from attestd.oauth.grants.asked import Asked
from attestd.oauth.narrowing import check_may_act, check_resource, extend_actors, read_actors
from attestd.oauth.request import Request
from attestd.oauth.server import AuthorizationServer
from attestd.oauth.subject_issuer import MAX_ACTORS, issuer_of
from attestd.policy.rights import Delegation
from attestd.store.engine import Transaction
from attestd.store.tokens import Token

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"


def identify(server: AuthorizationServer, request: Request) -> Client:
    """The client, by whichever way of authentication it used: it is the actor."""
    return choose.authenticate(server.service, request)


def ask(server: AuthorizationServer, request: Request, client: Client) -> Asked:
    """OAuthError `unauthorized_client`, `invalid_request` or `invalid_target` (RFC 8693, section 2.2.2)."""
    # 1. The agent may act for others at all.
    delegation = client.grant.delegation
    if delegation is None:
        detail = "The agent's grant lets it act for nobody else."
        raise OAuthError("unauthorized_client", detail, cause="delegation_not_granted")
    # 2. What is wanted is something that we issue.
    wanted = request.one("requested_token_type") or ACCESS_TOKEN
    if wanted not in (ACCESS_TOKEN, JWT):
        raise _refused("Only access tokens are issued.", "requested_token_type")
    # 3. Whatever is shown of the actor is the client's own.
    check_actor_token(server.service, request, client)
    # 4. The subject, with everything that its token leaves.
    token, kind = request.one("subject_token"), request.one("subject_token_type")
    if token is None or kind is None:
        raise _refused("subject_token and subject_token_type are needed.", "subject_missing")
    try:
        ours = issuer_of(token, kind) == server.issuer
        speak = _for_own if ours else _for_user
        asked = speak(server, request, client, delegation, token)
    except TokenError as error:
        detail = f"The subject token is not taken: {error.detail}."
        raise _refused(detail, f"subject_{error.reason}") from None
    return replace(asked, targets=_targets(request), issued_token_type=wanted)


def _for_user(
    server: AuthorizationServer, request: Request, client: Client, delegation: Delegation, token: str
) -> Asked:
    """A user of a trusted OpenID Provider."""
    kind = request.one("subject_token_type") or ""
    user = server.issuers.verify(token, kind, now=request.now)
    _check_issuer(delegation, user.issuer)
    check_may_act(user.may_act, agent=client.client_id, issuers=(server.issuer, server.trust_domain))
    actors = extend_actors(client.client_id, subject=user.subject, actors=user.actors, depth=delegation.depth)
    return Asked(
        client=client,
        grant_type=GRANT_TYPE,
        subject=user.subject,
        subject_issuer=user.issuer,
        actors=actors,
        scopes=user.scopes,
        details=user.details,
        until=user.expires_at,
    )


def _for_own(
    server: AuthorizationServer, request: Request, client: Client, delegation: Delegation, token: str
) -> Asked:
    """Whoever one of our own access tokens is about, in every link of its chain still live."""
    service, now = server.service, request.now
    claims = server.tokens.read(service, token, now=now)

    def look(tx: Transaction) -> tuple[Token, int] | None:
        line = live_line(service, tx, claims.token_id(), now=now)
        return (line[0], min(depth_of(service, tx, one) for one in line)) if line else None

    found = service.store.read(look)
    if found is None:
        raise TokenError("inactive", "it was ended, or what it rests on was")
    parent, depth = found
    _check_issuer(delegation, parent.subject_issuer or server.issuer)
    actors = extend_actors(
        client.client_id,
        subject=parent.subject,
        actors=read_actors(_act(parent), issuer=None, most=MAX_ACTORS),
        depth=min(depth, delegation.depth),
    )
    return Asked(
        client=client,
        grant_type=GRANT_TYPE,
        subject=parent.subject,
        subject_issuer=parent.subject_issuer,
        actors=actors,
        parents=(parent.token_id,),
        scopes=frozenset(parent.scope.split()),
        audiences=frozenset(parent.audience),
        details=tuple(json.loads(parent.authorization_details or "[]")),
        until=parent.expires_at,
    )


def _act(token: Token) -> Mapping[str, Any] | None:
    """The claim `act` of the parent; one that acts for itself has none."""
    return json.loads(token.actors) or None


def _check_issuer(delegation: Delegation, issuer: str) -> None:
    if issuer not in delegation.issuers:
        raise _refused("The agent's grant lets it act for no users of this issuer.", "delegation_issuer")


def _targets(request: Request) -> tuple[str, ...]:
    """RFC 8693, section 2.1: `resource` is a URI, `audience` a name that both sides know."""
    resources = request.many("resource")
    for resource in resources:
        check_resource(resource)
    return (*resources, *request.many("audience"))


def _refused(description: str, cause: str) -> OAuthError:
    return OAuthError("invalid_request", description, cause=cause)
