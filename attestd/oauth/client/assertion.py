"""Did the holder of an agent's attested key sign this client assertion? `private_key_jwt`.

RFC 7521 and RFC 7523, with the audience of draft-ietf-oauth-rfc7523bis: our issuer identifier and nothing
else. The key is the one that a live credential of the agent is bound to; none is registered.
"""

import json
from collections.abc import Collection
from typing import Final

from attestd.issue.jwk import BoundKey, read_jwk
from attestd.oauth import jose
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.client.registration import ProvenCredential, check_client_id, recognise, refusing
from attestd.oauth.errors import TokenError
from attestd.oauth.jose import Unverified
from attestd.oauth.replay import spend
from attestd.oauth.request import Request
from attestd.service import Service
from attestd.store import credentials
from attestd.store.credentials import Issued

METHOD: Final = "private_key_jwt"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME_SECONDS = 120
MAX_KEYS = 16
"""How many keys of one client are tried for an assertion that does not name its key by thumbprint."""

# RFC 7523bis, section 4: clients should send the last; servers are advised to take the others too.
_TYP = (None, "jwt", "client-authentication+jwt")


def authenticate(service: Service, request: Request) -> Client:
    """The client that signed the assertion; OAuthError `invalid_client` otherwise."""
    with refusing("assertion"):
        text = request.one("client_assertion") or ""
        proven = prove(service, text, typ=_TYP, audiences=(service.config.external_url,), now=request.now)
    check_client_id(request, proven.client_id)
    return recognise(service, proven, now=request.now)


def prove(
    service: Service, text: str, *, typ: Collection[str | None], audiences: Collection[str], now: int
) -> ProvenCredential:
    """The credential whose key signed this assertion for one of `audiences`; TokenError otherwise."""
    # 1. Well-formed.
    token = jose.read(text, typ=typ)
    # 2. About the client itself (RFC 7523, section 3, items 1 and 2.B).
    client_id = token.claims.text("iss")
    if token.claims.text("sub") != client_id:
        raise TokenError("sub", "iss and sub are the client_id")
    # 3. Signed by a key that a live credential of this client is bound to.
    bound = service.store.read(lambda tx: credentials.list_bound(tx, client_id, now))
    issued, key = _signed_with(token, bound)
    # 4. For this server alone (RFC 7523bis, section 4), for now, and once.
    audience = token.claims.audience()
    if len(audience) != 1 or audience[0] not in audiences:
        raise TokenError("aud", f"aud is {' or '.join(audiences)} and nothing else")
    ends = token.claims.require_short(now=now, seconds=LIFETIME_SECONDS)
    jti = token.claims.token_id()
    return ProvenCredential(
        method=METHOD,
        credential_id=issued.credential_id,
        format=issued.format,
        client_id=client_id,
        thumbprint=key.thumbprint,
        confirmation=Confirmation("jkt", key.thumbprint),
        spends=(spend("assertion", client_id, jti, until=ends),),
    )


def _signed_with(token: Unverified, bound: list[Issued]) -> tuple[Issued, BoundKey]:
    """The credential whose key signed; TokenError `bad_signature` when none did, or the client is unknown."""
    for issued in _candidates(token, bound):
        key = read_jwk(json.loads(issued.key_jwk or "{}"))
        if key.alg != token.alg:
            continue
        try:
            jose.verify(token, key.public, alg=key.alg)
        except TokenError:
            continue
        return issued, key
    raise TokenError("bad_signature", "no live key of the client has signed the assertion")


def _candidates(token: Unverified, bound: list[Issued]) -> list[Issued]:
    """A credential for each key, its WIT if it has one: the key named by thumbprint, else the newest."""
    by_key: dict[str | None, Issued] = {}
    for issued in bound:
        known = by_key.get(issued.key_thumbprint)
        if known is None or (issued.format == "wit-svid" and known.format != "wit-svid"):
            by_key[issued.key_thumbprint] = issued
    named = by_key.get(token.kid) if token.kid is not None else None
    return [named] if named is not None else list(by_key.values())[:MAX_KEYS]
