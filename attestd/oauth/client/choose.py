"""In which one of the ways does this request's client say who it is, and is it so?"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from attestd.oauth import dpop
from attestd.oauth.client import assertion, attestation, jwt_svid, mtls, wit
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.errors import OAuthError
from attestd.oauth.request import Request
from attestd.service import Service

Authenticate = Callable[[Service, Request], Client]

_BY_ASSERTION: Mapping[str, Authenticate] = {
    assertion.ASSERTION_TYPE: assertion.authenticate,
    jwt_svid.ASSERTION_TYPE: jwt_svid.authenticate,
}


def authenticate(service: Service, request: Request) -> Client:
    """The one client that the request proves. OAuthError `invalid_client` where it proves none, and
    `invalid_request` where it tries in two ways (RFC 6749, section 2.3).

    What is spent by it, and whether it is new, is for the transaction of the outcome; so is the posture.
    """
    # 1. Exactly one way to authenticate.
    found = [authenticate_ for used, authenticate_ in _methods(request) if used]
    if len(found) > 1:
        detail = "The client authenticates in one way and no more."
        raise OAuthError("invalid_request", detail, cause="two_methods")
    if not found:
        raise OAuthError("invalid_client", "The client does not authenticate.", cause="client_missing")
    client = found[0](service, request)
    # 2. A DPoP proof beside it, where it was not the proof itself.
    if client.proven_dpop or dpop.HEADER not in request.headers:
        return client
    return with_proof(service, request, client)


def attempted(request: Request) -> bool:
    """Does the request try to authenticate a client, in whichever way?"""
    return any(used for used, _ in _methods(request))


def _methods(request: Request) -> list[tuple[bool, Authenticate]]:
    assertion_given = {"client_assertion", "client_assertion_type"} & request.parameters.keys()
    # A shared secret is no way at all here, but is one beside another.
    secret_given = "client_secret" in request.parameters or "authorization" in request.headers
    return [
        (secret_given, _refuse_secret),
        (bool(assertion_given), _by_assertion),
        (
            bool({attestation.HEADER, attestation.POP_HEADER} & request.headers.keys()),
            attestation.authenticate,
        ),
        (bool({wit.HEADER, wit.PROOF_HEADER} & request.headers.keys()), wit.authenticate),
        (request.certificate is not None, mtls.authenticate),
    ]


def _by_assertion(service: Service, request: Request) -> Client:
    method = _BY_ASSERTION.get(request.one("client_assertion_type") or "")
    if method is None:
        detail = "client_assertion_type is jwt-bearer or jwt-spiffe."
        raise OAuthError("invalid_client", detail, cause="assertion_type")
    return method(service, request)


def _refuse_secret(service: Service, request: Request) -> Client:
    """RFC 6749, section 5.2: who tried `Authorization` is told which scheme was not accepted."""
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    headers = {"WWW-Authenticate": 'Basic realm="attestd"'} if scheme.lower() == "basic" else {}
    detail = "No client has a secret here."
    raise OAuthError("invalid_client", detail, cause="client_secret", headers=headers)


def with_proof(service: Service, request: Request, client: Client) -> Client:
    """The token is bound by DPoP, to the key of the credential. A JWT-SVID has none, so the proof may be by
    any: better than bound to nothing, and its grant allows a bearer token."""
    proof = dpop.check_proof(
        request, challenges=service.challenges, expected_jkt=client.credential.key_thumbprint
    )
    return replace(
        client,
        confirmation=Confirmation("jkt", proof.jkt),
        spends=(*client.spends, proof.spend),
        proven_dpop=True,
    )
