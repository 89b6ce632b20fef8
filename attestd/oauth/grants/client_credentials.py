"""An agent asks on its own authority (RFC 6749, section 4.4): for whom is the token, and about whom?"""

from attestd.oauth.client import choose
from attestd.oauth.client.client import Client
from attestd.oauth.grants.asked import Asked
from attestd.oauth.narrowing import check_resource
from attestd.oauth.request import Request
from attestd.oauth.server import AuthorizationServer

GRANT_TYPE = "client_credentials"


def identify(server: AuthorizationServer, request: Request) -> Client:
    """The client, by whichever way of authentication it used."""
    return choose.authenticate(server.service, request)


def ask(server: AuthorizationServer, request: Request, client: Client) -> Asked:
    """A token about the agent itself."""
    return about_itself(request, client, grant_type=GRANT_TYPE)


def about_itself(request: Request, client: Client, *, grant_type: str) -> Asked:
    """For the `resource` that the request names (RFC 8707)."""
    targets = request.many("resource")
    for target in targets:
        check_resource(target)
    return Asked(client=client, grant_type=grant_type, subject=client.client_id, targets=targets)
