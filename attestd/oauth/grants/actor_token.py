"""Is the actor token, where one is given, a credential of the very client that authenticated?

RFC 8693, section 2.1, leaves it optional. The actor is the client in any case, so another's credential would
only be a way to name somebody who is not there.
"""

from attestd.issue import client_attestation, wit
from attestd.oauth import jose
from attestd.oauth.client.client import Client
from attestd.oauth.client.registration import published_key
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.request import Request
from attestd.service import Service
from attestd.store import credentials

JWT = "urn:ietf:params:oauth:token-type:jwt"
_USES = {wit.TYP: "wit", client_attestation.TYP: "jwt"}
"""By the `typ` of a credential, the use of the key of ours that signs it."""


def check_actor_token(service: Service, request: Request, client: Client) -> None:
    """OAuthError `invalid_request` unless there is none, or it is the client's WIT or client attestation."""
    token, kind = request.one("actor_token"), request.one("actor_token_type")
    # 1. Both or neither.
    if (token is None) != (kind is None):
        raise _refused("actor_token and actor_token_type come together.", "actor_token_type")
    if token is None:
        return
    if kind != JWT:
        raise _refused("The actor token is the agent's WIT or client attestation, a jwt.", "actor_token_type")
    try:
        _check(service, token, client, now=request.now)
    except TokenError as error:
        raise _refused(f"The actor token is not taken: {error.detail}.", f"actor_{error.reason}") from None


def _check(service: Service, token: str, client: Client, *, now: int) -> None:
    # 2. A credential of ours that still counts.
    unverified = jose.read(token, typ=_USES.keys(), algs=jose.ISSUER_ALGS)
    use = _USES[str(unverified.header["typ"]).lower().removeprefix("application/")]
    signer = published_key(service.keyring.at(now), use, unverified.kid)
    claims = jose.verify(unverified, signer.public, alg=signer.alg)
    claims.require_current(now=now)
    issued = service.store.read(lambda tx: credentials.get(tx, claims.token_id()))
    if issued is None or not issued.is_live(now):
        raise TokenError("credential_ended", "it has ended")
    # 3. This client's, on this device.
    own = (issued.spiffe_id, issued.device_id) == (client.client_id, client.device.device_id)
    if not own or claims.text("sub") != client.client_id:
        raise TokenError("other_client", "it is another client's than the one that authenticated")


def _refused(description: str, cause: str) -> OAuthError:
    return OAuthError("invalid_request", description, cause=cause)
