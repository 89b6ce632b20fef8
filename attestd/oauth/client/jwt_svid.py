"""Does this JWT-SVID authenticate its holder as a client?

draft-ietf-oauth-spiffe-client-auth, section 3.1. A bearer token: whoever holds it is believed, so it counts
only where the policy's grant says `bearer = true`, and what follows from it is bound to no attested key.
"""

from typing import Final

from attestd.oauth import jose
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.client.registration import (
    ProvenCredential,
    check_client_id,
    published_key,
    recognise,
    refusal,
    refusing,
)
from attestd.oauth.errors import TokenError
from attestd.oauth.request import Request
from attestd.service import Service

METHOD: Final = "spiffe_jwt"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

# JWT-SVID standard, sections 2.2 and 2.3: nothing else is allowed in the header, and these values of `typ`.
_HEADER = frozenset({"alg", "kid", "typ"})
_TYP = (None, "jwt", "jose")


def authenticate(service: Service, request: Request) -> Client:
    """The client that the JWT-SVID names; OAuthError `invalid_client` otherwise."""
    with refusing("jwt_svid"):
        # 1. Well-formed, and signed by a key of ours that we publish.
        token = jose.read(request.one("client_assertion") or "", typ=_TYP, algs=jose.ISSUER_ALGS)
        if token.header.keys() - _HEADER:
            raise TokenError("header_unknown", "a JWT-SVID has alg, kid and typ in its header")
        signer = published_key(service.keyring.at(request.now), "jwt", token.kid)
        claims = jose.verify(token, signer.public, alg=signer.alg)
        # 2. By us, for us and for nobody else, and still good.
        if claims.text("iss") != service.config.external_url:
            raise TokenError("iss", "iss is this service")
        claims.require_sole_audience(service.config.external_url)
        claims.require_current(now=request.now)
        client_id, credential_id = claims.text("sub"), claims.token_id()
    check_client_id(request, client_id)
    # 3. It is one that was issued, and the policy lets its agent be known by it.
    proven = ProvenCredential(
        METHOD, credential_id, "jwt-svid", client_id, thumbprint=None, confirmation=Confirmation("none")
    )
    client = recognise(service, proven, now=request.now)
    if not client.grant.bearer:
        error = refusal("not_bearer", "the policy lets no client be known by a bearer token")
        error.client_id, error.device_id = client.client_id, client.device.device_id
        raise error
    return client
