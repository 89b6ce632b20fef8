"""Does the sender of this request hold the key that its DPoP proof shows? (RFC 9449)"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from attestd.issue.jwk import BoundKey, base64url, read_jwk
from attestd.nonce import Sealer
from attestd.oauth import challenge, jose
from attestd.oauth.claims import MAX_TEXT, Claims
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.replay import Spend, spend
from attestd.oauth.request import Request
from attestd.oauth.uri import same
from tpm.errors import StructureError

TYP = "dpop+jwt"
HEADER = "dpop"
WINDOW_SECONDS = 60
"""How far `iat` may lie from now, on either side."""

_PUBLIC_MEMBERS: Mapping[str, tuple[str, ...]] = {"EC": ("kty", "crv", "x", "y"), "RSA": ("kty", "n", "e")}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds for one request; comes from `check_proof` alone. It is not spent yet."""

    jkt: str
    """RFC 7638 thumbprint of the key, base64url."""
    key: BoundKey
    jti: str
    spend: Spend


def check_proof(
    request: Request,
    *,
    challenges: Sealer,
    access_token: str | None = None,
    expected_jkt: str | None = None,
) -> Proof:
    """The proof in the request's `DPoP` header, by the checks of RFC 9449, section 4.3, in its order.

    `access_token` is the token beside it, if one is there; `expected_jkt` the thumbprint that its key must
    have. OAuthError `invalid_dpop_proof`, or `use_dpop_nonce` with a fresh nonce where it lacks one or its
    own has grown old. That the `jti` is new is for the transaction that spends it.
    """
    # 1. There is exactly one.
    token = request.header(HEADER, error="invalid_dpop_proof")
    if token is None:
        raise OAuthError("invalid_dpop_proof", "A DPoP proof is needed.", cause="dpop_missing")
    try:
        # 2, 3, 5. Well-formed, `typ` and an algorithm for private keys.
        unverified = jose.read(token, typ={TYP}, embedded_key=True)
        # 7. The key is public; it is strong, and one of its algorithm.
        key = read_header_key(unverified.header["jwk"], unverified.alg)
        # 6. It signed the proof.
        claims = jose.verify(unverified, key.public, alg=key.alg)
        # 4, 8, 9, 11, 12. For this request, by this key.
        issued_at = _check_claims(claims, request, access_token=access_token)
        jti = claims.token_id()
    except TokenError as error:
        raise _refused(error) from None
    # 12. By the key that the credential or the token is bound to.
    jkt = key.thumbprint
    if expected_jkt is not None and not hmac.compare_digest(jkt, expected_jkt):
        detail = "The DPoP proof is not by the key that the client's credential is bound to."
        raise OAuthError("invalid_dpop_proof", detail, cause="dpop_other_key")
    # 10. The nonce is ours and fresh. Last, because its answer invites another try.
    _check_nonce(claims, challenges, now=request.now)
    until = issued_at + WINDOW_SECONDS * 1000
    return Proof(jkt, key, jti, spend("dpop", jkt, jti, until=until))


def read_header_key(jwk: Mapping[str, object], alg: str) -> BoundKey:
    """The key that a header shows. Members that say no more of the key (`kid`, `use`, `key_ops`, …) are
    ignored (RFC 7517, section 4), private ones are not. TokenError `private_key`, `weak_key` or `bad_key`."""
    if _PRIVATE_MEMBERS & jwk.keys():
        raise TokenError("private_key", "the key in the header is public: leave out its private members")
    if jwk.get("alg", alg) != alg:
        raise TokenError("alg", "the alg of the key is the alg of the header")
    members = _PUBLIC_MEMBERS.get(str(jwk.get("kty")), ())
    try:
        return read_jwk({**{name: jwk.get(name) for name in members}, "alg": alg})
    except StructureError as error:
        reason = error.reason if error.reason == "weak_key" else "bad_key"
        raise TokenError(reason, error.detail) from None


def token_hash(token: str) -> str:
    """`ath` of RFC 9449, `wth` and its like of the Workload Proof Token: SHA-256 of the ASCII text."""
    return base64url(hashlib.sha256(token.encode("ascii")).digest())


def _check_claims(claims: Claims, request: Request, *, access_token: str | None) -> int:
    """When the proof was made, in milliseconds."""
    # 8. The method, as it is spelled.
    if claims.text("htm") != request.method:
        raise TokenError("htm", f"htm is {request.method}")
    # 9. The configured URL, whatever host the request names; query and fragment do not count.
    if not same(claims.text("htu"), request.url):
        raise TokenError("htu", f"htu is {request.url}")
    # 11. Made just now.
    issued_at = claims.require_recent(now=request.now, seconds=WINDOW_SECONDS)
    # 12. For the token beside it.
    if access_token is not None:
        ath = claims.text("ath")
        if not hmac.compare_digest(ath.encode(), token_hash(access_token).encode()):
            raise TokenError("ath", "ath is the hash of the access token")
    return issued_at


def _check_nonce(claims: Claims, challenges: Sealer, *, now: int) -> None:
    nonce = claims.members.get("nonce")
    if nonce is None:
        raise _nonce_needed(challenges, "nonce_missing", now=now)
    if not isinstance(nonce, str) or len(nonce) > MAX_TEXT:
        raise _refused(TokenError("claim", "nonce is text"))
    try:
        challenge.check(challenges, nonce, now=now)
    except TokenError as error:
        if error.reason == "nonce_expired":
            raise _nonce_needed(challenges, error.reason, now=now) from None
        # Nobody who got it from us has this one. The next try may have a good one.
        headers = {challenge.NONCE_HEADER: challenge.issue(challenges, now=now)}
        raise _refused(error, headers) from None


def _nonce_needed(challenges: Sealer, cause: str, *, now: int) -> OAuthError:
    headers = {challenge.NONCE_HEADER: challenge.issue(challenges, now=now)}
    detail = "Make the DPoP proof again with the nonce of this answer."
    return OAuthError("use_dpop_nonce", detail, cause=f"dpop_{cause}", headers=headers)


def _refused(error: TokenError, headers: Mapping[str, str] | None = None) -> OAuthError:
    detail = f"The DPoP proof does not hold: {error.detail}."
    return OAuthError("invalid_dpop_proof", detail, cause=f"dpop_{error.reason}", headers=headers or {})
