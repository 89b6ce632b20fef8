"""Is this an agent whose device we attested, and does it hold the attested key?

draft-ietf-oauth-attestation-based-client-auth: a client attestation, which attestd itself issued as the
client attester, with a proof by its key. The proof is a token of its own (`attest_jwt_client_auth`), or the
request's DPoP proof (`attest_jwt_client_auth_dpop`).
"""

from typing import Any, Final

from attestd.issue.client_attestation import TYP
from attestd.issue.jwk import BoundKey, read_jwk
from attestd.oauth import challenge, dpop, jose
from attestd.oauth.claims import Claims
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.client.registration import (
    ProvenCredential,
    check_client_id,
    published_key,
    recognise,
    refusal,
    refusing,
)
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.replay import Spend, spend
from attestd.oauth.request import Request
from attestd.service import Service
from tpm.errors import StructureError

METHOD: Final = "attest_jwt_client_auth"
METHOD_DPOP: Final = "attest_jwt_client_auth_dpop"
HEADER = "oauth-client-attestation"
POP_HEADER = "oauth-client-attestation-pop"
POP_TYP = "oauth-client-attestation-pop+jwt"
WINDOW_SECONDS = 60
"""How far `iat` of a proof may lie from now, on either side."""


def authenticate(service: Service, request: Request) -> Client:
    """The client that the attestation names. OAuthError `invalid_client`, `invalid_dpop_proof`, or
    `use_attestation_challenge` with a fresh one where the proof lacks a good one."""
    # 1. Exactly one attestation, by us, for a key (section 7.1).
    token = request.header(HEADER)
    with refusing("attestation"):
        claims = _verify_attestation(service, token or "", now=request.now)
        client_id, credential_id = claims.text("sub"), claims.token_id()
        key = confirmed_key(claims)
        jkt = key.thumbprint
    check_client_id(request, client_id)
    # 2. The key is here, now (sections 7.2 and 7.3). With both headers the rules of the PoP apply, and the
    #    DPoP proof is handled like any other.
    combined = POP_HEADER not in request.headers
    proof = _combined_proof(service, request, jkt) if combined else _pop(service, request, key, client_id)
    proven = ProvenCredential(
        method=METHOD_DPOP if combined else METHOD,
        credential_id=credential_id,
        format="client-attestation",
        client_id=client_id,
        thumbprint=jkt,
        confirmation=Confirmation("jkt", jkt),
        spends=(proof,),
        proven_dpop=combined,
    )
    # 3. The attestation is one that was issued, and was not ended.
    return recognise(service, proven, now=request.now)


def confirmed_key(claims: Claims) -> BoundKey:
    """The key in `cnf.jwk`, with its `alg` (RFC 7800, section 3.2); TokenError `cnf` when there is none."""
    confirmation: Any = claims.members.get("cnf")
    jwk = confirmation.get("jwk") if isinstance(confirmation, dict) else None
    if not isinstance(jwk, dict) or confirmation.keys() != {"jwk"}:
        raise TokenError("cnf", "cnf holds a jwk and nothing else")
    try:
        return read_jwk(jwk)
    except StructureError as error:
        raise TokenError("cnf", error.detail) from None


def _verify_attestation(service: Service, token: str, *, now: int) -> Claims:
    unverified = jose.read(token, typ={TYP}, algs=jose.ISSUER_ALGS)
    signer = published_key(service.keyring.at(now), "jwt", unverified.kid)
    claims = jose.verify(unverified, signer.public, alg=signer.alg)
    if claims.text("iss") != service.config.external_url:
        raise TokenError("iss", "iss is this service")
    claims.require_current(now=now)
    return claims


def _combined_proof(service: Service, request: Request, jkt: str) -> Spend:
    """The DPoP proof, by the key of the attestation and with the challenge as its nonce (section 6.2)."""
    if dpop.HEADER not in request.headers:
        raise refusal("attestation_pop_missing", "A client attestation comes with a proof by its key.")
    try:
        proof = dpop.check_proof(request, challenges=service.challenges, expected_jkt=jkt)
    except OAuthError as error:
        if error.error != "use_dpop_nonce":
            raise
        detail = "Make the proof again with the challenge of this answer as its nonce."
        raise challenge.challenge_needed(
            service.challenges, detail, now=request.now, cause=error.cause or "nonce"
        ) from None
    return proof.spend


def _pop(service: Service, request: Request, key: BoundKey, client_id: str) -> Spend:
    """The proof of section 5.2: signed by the key, for us, now, once, and for a challenge of ours."""
    token = request.header(POP_HEADER) or ""
    with refusing("attestation_pop"):
        # 1. By the key, with the algorithm that is the key's.
        claims = jose.verify(jose.read(token, typ={POP_TYP}), key.public, alg=key.alg)
        # 2. By this client, where it says so, and for this server alone.
        if claims.optional_text("iss") not in (None, client_id):
            raise TokenError("iss", "iss, where it is given, is the client_id")
        claims.require_sole_audience(service.config.external_url)
        # 3. Made just now.
        issued_at = claims.require_recent(now=request.now, seconds=WINDOW_SECONDS)
        if "exp" in claims.members:
            claims.require_current(now=request.now)
        jti = claims.token_id()
        given = claims.optional_text("challenge")
    # 4. For a challenge that we gave out, since we offer them (section 8.1).
    _check_challenge(service, given, now=request.now)
    until = issued_at + WINDOW_SECONDS * 1000
    return spend("attestation-pop", key.thumbprint, jti, until=until)


def _check_challenge(service: Service, given: str | None, *, now: int) -> None:
    detail = "Make the proof again with the challenge of this answer."
    if given is None:
        raise challenge.challenge_needed(service.challenges, detail, now=now, cause="challenge_missing")
    try:
        challenge.check(service.challenges, given, now=now)
    except TokenError as error:
        raise challenge.challenge_needed(service.challenges, detail, now=now, cause=error.reason) from None
