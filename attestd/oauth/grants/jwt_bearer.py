"""An agent asks by an assertion of its own (RFC 7523, section 2.1): did its attested key sign it, for us?

The agent is the assertion's `sub` and `iss`, as draft-klrc-aiagent-auth, section 9.4.2 has it. Assertions
about users are no grant here: a user's token is exchanged (RFC 8693), so that the agent stays in the result.
"""

from dataclasses import replace

from attestd.oauth.client import assertion, choose
from attestd.oauth.client.client import Client
from attestd.oauth.client.registration import check_client_id, recognise
from attestd.oauth.dpop import HEADER as DPOP_HEADER
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.grants import client_credentials
from attestd.oauth.grants.asked import Asked
from attestd.oauth.request import Request
from attestd.oauth.server import AuthorizationServer

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
REPLAY_KIND = "grant-assertion"

# Not `client-authentication+jwt`: what authenticates a client is no grant (RFC 8725, section 3.11).
_TYP = (None, "jwt")


def identify(server: AuthorizationServer, request: Request) -> Client:
    """The agent that signed the assertion. Client authentication is optional (RFC 7521, section 4.1); one
    that is given must be the same agent's. OAuthError `invalid_grant` for what is wrong with the
    assertion."""
    service = server.service
    try:
        audiences = (server.issuer, request.url)
        text = request.one("assertion") or ""
        proven = assertion.prove(service, text, typ=_TYP, audiences=audiences, now=request.now)
    except TokenError as error:
        raise OAuthError(
            "invalid_grant",
            f"The assertion does not hold: {error.detail}.",
            cause=f"assertion_{error.reason}",
        ) from None
    spends = tuple(one._replace(kind=REPLAY_KIND) for one in proven.spends)
    if choose.attempted(request):
        client = choose.authenticate(service, request)
        if client.client_id != proven.client_id:
            raise OAuthError("invalid_grant", "The assertion is another client's.", cause="assertion_client")
        return replace(client, spends=(*client.spends, *spends))
    check_client_id(request, proven.client_id)
    client = recognise(service, replace(proven, spends=spends), now=request.now)
    return choose.with_proof(service, request, client) if DPOP_HEADER in request.headers else client


def ask(server: AuthorizationServer, request: Request, client: Client) -> Asked:
    """The same as on its own authority in any other way."""
    return client_credentials.about_itself(request, client, grant_type=GRANT_TYPE)
