"""Is this one of our access tokens, and does everything that it rests on still stand?

A token that was passed on rests on the devices of all who passed it on: each must be in the posture in which
it got its own."""

from typing import Final

from attestd.issue import access_token
from attestd.issue.keys import Keys
from attestd.oauth import jose
from attestd.oauth.claims import Claims
from attestd.oauth.client.registration import published_key, registration
from attestd.oauth.errors import TokenError
from attestd.oauth.posture import is_live
from attestd.policy.choose import NoPolicy
from attestd.policy.entitlement import NotEntitled
from attestd.service import Service
from attestd.store import credentials, devices, standing, tokens
from attestd.store.engine import Transaction
from attestd.store.tokens import Token

_REMEMBERED: Final = 4096


class OwnTokens:
    """Our access tokens, each verified once: a resource shows the same one again and again.

    Only tokens that we signed are kept, and only for as long as the same keys are published.
    """

    def __init__(self) -> None:
        self._verified: dict[str, tuple[Keys, Claims]] = {}

    def read(self, service: Service, token: str, *, now: int) -> Claims:
        """The claims of an access token that we signed and that has not expired; TokenError otherwise.
        Whether it was ended early is not known from the token: `stands` looks."""
        keys = service.keyring.at(now)
        kept = self._verified.get(token)
        if kept is None or kept[0] is not keys:
            kept = (keys, _verify(token, keys, issuer=service.config.external_url))
            if len(self._verified) >= _REMEMBERED:
                self._verified.clear()
            self._verified[token] = kept
        kept[1].require_current(now=now)
        return kept[1]


def _verify(token: str, keys: Keys, *, issuer: str) -> Claims:
    # 1. An access token and nothing else of ours (RFC 9068, section 4).
    unverified = jose.read(token, typ={access_token.TYP}, algs=jose.ISSUER_ALGS)
    # 2. Signed by a key that we publish for it.
    signer = published_key(keys, "jwt", unverified.kid)
    claims = jose.verify(unverified, signer.public, alg=signer.alg)
    # 3. In our name.
    if claims.text("iss") != issuer:
        raise TokenError("issuer", "its issuer is another one")
    return claims


def stands(service: Service, tx: Transaction, token_id: str, *, now: int) -> bool:
    """Is the token known and alive, and all that it descends from, each with its device's posture and the
    credential of its client? One that was ended stays so, even if its device's posture is accepted again.
    Problem `unavailable` while the trust store cannot be read."""
    line = standing.of_line(tx, token_id)
    return bool(line) and all(is_live(service, one.machine, one, now=now) for one in line)


def live_line(service: Service, tx: Transaction, token_id: str, *, now: int) -> tuple[Token, ...]:
    """The token, then all that it descends from; empty unless it stands."""
    return tokens.live_line(tx, token_id, now=now) if stands(service, tx, token_id, now=now) else ()


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
