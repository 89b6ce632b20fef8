"""In which one of the ways does this request's client say who it is, and is it so?"""

from attestd.oauth.client.client import Client
from attestd.oauth.errors import OAuthError
from attestd.oauth.request import Request
from attestd.service import Service


def authenticate(service: Service, request: Request) -> Client:
    """The one client that the request proves; OAuthError otherwise."""
    del service, request
    raise OAuthError("invalid_client", "No client authentication is given.", cause="client_missing")
