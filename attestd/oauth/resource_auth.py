"""Which protected resource asks about a token, and has it proven that it is this one?

Only configured resources ([[resource]]) may ask. One proves itself by a client assertion under a key of its
file (`private_key_jwt`), or by the X.509-SVID of an attested machine whose SPIFFE ID is its client_id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attestd.counterparts import Resource
from attestd.issue.keys import Keys
from attestd.oauth import jose, key_sets
from attestd.oauth.client import mtls
from attestd.oauth.client.assertion import ASSERTION_TYPE, LIFETIME_SECONDS
from attestd.oauth.client.registration import ProvenCredential, check_client_id, refusal, refusing
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.key_sets import ALGS, FileKeys
from attestd.oauth.posture import fault
from attestd.oauth.replay import Spend, spend
from attestd.oauth.request import Request
from attestd.service import Service
from attestd.store import standing
from attestd.store.engine import Transaction

_TYP: Final = (None, "jwt", "client-authentication+jwt")
_CERTIFICATES: Final = 256
"""How many verified certificates are remembered: a resource keeps its connection and asks again and again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A resource that proved itself; comes from `Resources.authenticate` alone.

    Its assertion is not spent yet (`spends`), its credential not yet known to be live (`check_credential`):
    both are for the transaction in which it is answered.
    """

    resource: Resource
    spends: tuple[Spend, ...] = ()
    credential: ProvenCredential | None = None


class Resources:
    """The configured resources with their keys. Shared by all threads."""

    def __init__(self, configured: Sequence[Resource]) -> None:
        """Reads the key files: PolicyError names one that cannot be used."""
        self._known = {each.client_id: (each, FileKeys(each.jwks)) for each in configured}
        self._verified: dict[bytes, tuple[Keys, ProvenCredential]] = {}

    def authenticate(self, service: Service, request: Request) -> Caller:
        """OAuthError `invalid_client`, or `invalid_request` for two ways at once."""
        by_assertion = {"client_assertion", "client_assertion_type"} & request.parameters.keys()
        if "authorization" in request.headers or "client_secret" in request.parameters:
            raise refusal("client_secret", "No resource has a secret or a token for this.")
        if by_assertion and request.certificate is not None:
            raise OAuthError("invalid_request", "A resource proves itself in one way.", cause="two_methods")
        if by_assertion:
            return self._by_assertion(service, request)
        if request.certificate is not None:
            return self._by_certificate(service, request, request.certificate)
        raise refusal("client_missing", "The resource does not authenticate.")

    def _by_assertion(self, service: Service, request: Request) -> Caller:
        if request.one("client_assertion_type") != ASSERTION_TYPE:
            raise refusal("assertion_type", "client_assertion_type is jwt-bearer.")
        with refusing("assertion"):
            # 1. Well-formed, and about one of the configured resources itself.
            token = jose.read(request.one("client_assertion") or "", typ=_TYP, algs=ALGS)
            client_id = token.claims.text("iss")
            if token.claims.text("sub") != client_id or client_id not in self._known:
                raise TokenError("sub", "iss and sub are the client_id of a configured resource")
            resource, keys = self._known[client_id]
            # 2. Signed by one of its keys.
            claims = key_sets.verify(keys, token, now=request.now)
            # 3. For this server alone, for now, and once.
            claims.require_sole_audience(service.config.external_url)
            ends = claims.require_short(now=request.now, seconds=LIFETIME_SECONDS)
            once = spend("resource-assertion", client_id, claims.token_id(), until=ends)
        check_client_id(request, client_id)
        return Caller(resource, spends=(once,))

    def _by_certificate(self, service: Service, request: Request, der: bytes) -> Caller:
        keys = service.keyring.at(request.now)
        known = self._verified.get(der)
        if known is not None and known[0] is keys:
            proven = known[1]
        else:
            with refusing("svid"):
                proven = mtls.prove(der, keys, now=request.now)
            if len(self._verified) >= _CERTIFICATES:
                self._verified.clear()
            self._verified[der] = (keys, proven)
        if proven.client_id not in self._known:
            raise refusal("resource_unknown", "The certificate is of no configured resource.")
        check_client_id(request, proven.client_id)
        return Caller(self._known[proven.client_id][0], credential=proven)


def check_credential(service: Service, tx: Transaction, caller: Caller, *, now: int) -> None:
    """OAuthError `invalid_client` unless the SVID of the caller, if it came with one, was issued here and its
    machine is in the posture in which it got it."""
    proven = caller.credential
    if proven is None:
        return
    issued = standing.of_credential(
        tx,
        proven.credential_id,
        credential_format=proven.format,
        spiffe_id=proven.client_id,
        thumbprint=proven.thumbprint or "",
    )
    if issued is None:
        raise refusal("credential_unknown", "The credential is none that was issued here.")
    word = fault(service, issued.machine, issued, now=now)
    if word is not None:
        raise refusal(word, "The resource's credential has ended.")
