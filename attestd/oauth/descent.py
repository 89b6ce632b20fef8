"""Is this one of our access tokens, and does everything that it rests on still stand?

A token that was passed on rests on the devices of all who passed it on: each must be in the posture in which
it got its own."""

from attestd.issue import access_token
from attestd.oauth import jose
from attestd.oauth.claims import Claims
from attestd.oauth.client.registration import published_key, registration
from attestd.oauth.errors import TokenError
from attestd.oauth.posture import is_live
from attestd.policy.choose import NoPolicy
from attestd.policy.entitlement import NotEntitled
from attestd.service import Service
from attestd.store import credentials, devices, tokens
from attestd.store.engine import Transaction
from attestd.store.tokens import Token


def read_own(service: Service, token: str, *, now: int) -> Claims:
    """The claims of an access token that we signed and that has not expired; TokenError otherwise. Whether it
    was ended early is not known from the token: `live_line` looks."""
    # 1. An access token and nothing else of ours (RFC 9068, section 4).
    unverified = jose.read(token, typ={access_token.TYP}, algs=jose.ISSUER_ALGS)
    # 2. Signed by a key that we publish for it.
    signer = published_key(service.keyring.at(now), "jwt", unverified.kid)
    claims = jose.verify(unverified, signer.public, alg=signer.alg)
    # 3. In our name, and not over.
    if claims.text("iss") != service.config.external_url:
        raise TokenError("issuer", "its issuer is another one")
    claims.require_current(now=now)
    return claims


def live_line(service: Service, tx: Transaction, token_id: str, *, now: int) -> tuple[Token, ...]:
    """The token, then all that it descends from; empty unless each of them stands, with its device's posture
    and the credential of its client. Problem `unavailable` while the trust store cannot be read."""
    line = tokens.live_line(tx, token_id, now=now)
    return line if all(_stands(service, tx, token, now=now) for token in line) else ()


def depth_of(service: Service, tx: Transaction, token: Token) -> int:
    """How many actors may stand in what descends from this token, by the policy in force for whoever asked
    for it; 0 where its agent may pass nothing on."""
    device, credential = devices.find(tx, token.device_id), credentials.get(tx, token.credential_id)
    if device is None or credential is None:
        return 0
    try:
        _, grant = registration(service, tx, device, credential)
    except (NoPolicy, NotEntitled):
        return 0
    return 0 if grant.delegation is None else grant.delegation.depth


def _stands(service: Service, tx: Transaction, token: Token, *, now: int) -> bool:
    if not is_live(service, devices.find(tx, token.device_id), token, now=now):
        return False
    # A credential that was ended stays so, even if its device's posture is accepted again.
    credential = credentials.get(tx, token.credential_id)
    return credential is not None and credential.revoked_at is None
