"""Does a workload's identity token come with a proof that its key made for this very request?

Workload-Identity-Token and Workload-Proof-Token: draft-ietf-wimse-workload-creds, section 5.1, and
draft-ietf-wimse-wpt, section 2. Errors are 400, for 401 would ask for another way to authenticate (WIT draft,
section 5.2; WPT draft, section 2.1).
"""

import hmac
from collections.abc import Mapping
from typing import Final

from attestd.issue.jwk import BoundKey
from attestd.issue.keys import Keys
from attestd.issue.wit import TYP as WIT_TYP
from attestd.oauth import jose
from attestd.oauth.claims import Claims
from attestd.oauth.client.attestation import confirmed_key
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.client.registration import (
    ProvenCredential,
    check_client_id,
    published_key,
    recognise,
    refusing,
)
from attestd.oauth.dpop import token_hash
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.replay import Spend, spend
from attestd.oauth.request import Request
from attestd.oauth.uri import same
from attestd.service import Service

METHOD: Final = "workload_identity_token"
HEADER = "workload-identity-token"
PROOF_HEADER = "workload-proof-token"
PROOF_TYP = "wpt+jwt"
LIFETIME_SECONDS = 300

_TRANSACTION = "txn-token"
_OTHER_TOKENS = frozenset({"oauth-client-attestation", "oauth-client-attestation-pop"})
"""Headers beside Authorization and Txn-Token that would say who somebody is; a proof must cover each."""
_OTHERS_KNOWN = _OTHER_TOKENS | {"dpop"}


def authenticate(service: Service, request: Request) -> Client:
    """The client that the WIT names; OAuthError otherwise, always with status 400."""
    try:
        return _authenticate(service, request)
    except OAuthError as error:
        error.status = 400
        raise


def _authenticate(service: Service, request: Request) -> Client:
    token = request.header(HEADER) or ""
    with refusing("wit"):
        wit = verify_wit(token, service.keyring.at(request.now), service.config.trust_domain, now=request.now)
        client_id, credential_id = wit.text("sub"), wit.token_id()
        key = confirmed_key(wit)
    check_client_id(request, client_id)
    with refusing("wpt"):
        proof = verify_proof(request, wit=token, key=key)
    proven = ProvenCredential(
        method=METHOD,
        credential_id=credential_id,
        format="wit-svid",
        client_id=client_id,
        thumbprint=key.thumbprint,
        confirmation=Confirmation("jkt", key.thumbprint),
        spends=(proof,),
    )
    return recognise(service, proven, now=request.now)


def verify_wit(token: str, keys: Keys, trust_domain: str, *, now: int) -> Claims:
    """The claims of a WIT of ours; TokenError otherwise. Keys are those that we publish for this use; `iss`
    says nothing of where they are (section 5.1.3)."""
    unverified = jose.read(token, typ={WIT_TYP}, algs=jose.ISSUER_ALGS)
    signer = published_key(keys, "wit", unverified.kid)
    claims = jose.verify(unverified, signer.public, alg=signer.alg)
    if claims.text("iss") != f"spiffe://{trust_domain}":
        raise TokenError("iss", "iss is this trust domain")
    # WIT-SVID profile: it is for whoever trusts the domain, so no audience may narrow it.
    if "aud" in claims.members:
        raise TokenError("aud", "a WIT has no audience")
    claims.require_current(now=now)
    return claims


def verify_proof(request: Request, *, wit: str, key: BoundKey) -> Spend:
    """The Workload-Proof-Token beside the WIT, in the order of the draft's section 2.3; TokenError otherwise.
    That the `jti` is new is for the transaction that spends it."""
    # 1. Exactly one header, well-formed, of its type, by the WIT's key with the algorithm that the WIT names.
    token = request.header(PROOF_HEADER) or ""
    claims = jose.verify(jose.read(token, typ={PROOF_TYP}), key.public, alg=key.alg)
    # 2. For the configured URL, whatever host the request names.
    audience = claims.audience()
    if len(audience) != 1 or not same(audience[0], request.url):
        raise TokenError("aud", f"aud is {request.url}")
    # 3. Ends soon.
    ends = claims.require_short(now=request.now, seconds=LIFETIME_SECONDS)
    # 4. For this WIT.
    _check_hash(claims.text("wth"), wit, "wth")
    # 5. For whatever else in the request says who somebody is, and for nothing that is not there.
    _check_cover(claims, "ath", _access_token(request))
    _check_cover(claims, "tth", request.header(_TRANSACTION))
    _check_others(claims, request.headers)
    return spend("wpt", key.thumbprint, claims.token_id(), until=ends)


def _access_token(request: Request) -> str | None:
    """What comes with `Authorization`, under whichever scheme."""
    value = request.header("authorization")
    return None if value is None else value.partition(" ")[2].strip(" ")


def _check_cover(claims: Claims, name: str, token: str | None) -> None:
    """The claim is there exactly if the token is, and is its hash."""
    if (name in claims.members) != (token is not None):
        raise TokenError(name, f"{name} is given exactly where its token is in the request")
    if token is not None:
        _check_hash(claims.text(name), token, name)


def _check_others(claims: Claims, headers: Mapping[str, str]) -> None:
    others = claims.members.get("oth", {})
    if not isinstance(others, dict):
        raise TokenError("oth", "oth is an object")
    # 1. Every entry is of a header that we know and that is here, and is its hash.
    for name, digest in others.items():
        if name not in _OTHERS_KNOWN or name not in headers or not isinstance(digest, str):
            raise TokenError("oth", "oth names known headers of this request, in lower case")
        _check_hash(digest, headers[name].strip(" \t"), "oth")
    # 2. No token is here that the proof does not cover.
    if uncovered := (_OTHER_TOKENS & headers.keys()) - others.keys():
        raise TokenError("oth", f"oth covers {', '.join(sorted(uncovered))}")


def _check_hash(given: str, token: str, name: str) -> None:
    if not token.isascii() or not hmac.compare_digest(given.encode(), token_hash(token).encode()):
        raise TokenError(name, f"{name} is the hash of the token in the request")
