"""Did we give out this nonce, and not long ago?

One mechanism for the server's nonces of DPoP (RFC 9449, section 8) and the challenges of client
attestations (draft-ietf-oauth-attestation-based-client-auth, section 8): 32 sealed bytes that carry their own
time. To issue one writes nothing, and every replica accepts it. It may be used more than once while it is
fresh; that a proof is used only once is for its `jti`.
"""

import secrets
from base64 import urlsafe_b64decode

from attestd.issue.jwk import base64url
from attestd.nonce import NONCE_SIZE, Sealer
from attestd.oauth.errors import OAuthError, TokenError
from tpm.errors import EvidenceError

LIFETIME_MS = 5 * 60 * 1000
SKEW_MS = 5000
"""How far a replica's clock may be ahead of the one that opens its challenge."""
CHALLENGE_HEADER = "OAuth-Client-Attestation-Challenge"
NONCE_HEADER = "DPoP-Nonce"

_RANDOM_SIZE = 8


def issue(sealer: Sealer, *, now: int) -> str:
    """A fresh one: 43 characters of base64url, unpredictable."""
    value = secrets.token_bytes(_RANDOM_SIZE) + now.to_bytes(8, "big")
    return base64url(sealer.seal(value))


def check(sealer: Sealer, text: str, *, now: int) -> None:
    """TokenError `nonce_unknown` when it is not ours, `nonce_expired` when it is too old, `nonce_ahead` when
    it is from the future."""
    try:
        sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) < 2 * NONCE_SIZE else b""
        if base64url(sealed) != text:
            raise ValueError("not as we write it")
        value = sealer.open(sealed)
    except (ValueError, EvidenceError):
        raise TokenError("nonce_unknown", "this server did not issue the nonce") from None
    age = now - int.from_bytes(value[_RANDOM_SIZE:], "big")
    if age > LIFETIME_MS:
        raise TokenError("nonce_expired", "the nonce is too old; use the one that comes with this answer")
    if age < -SKEW_MS:
        raise TokenError("nonce_ahead", "the nonce is from the future")


def challenge_needed(sealer: Sealer, detail: str, *, now: int, cause: str) -> OAuthError:
    """`use_attestation_challenge`, with a fresh one in both headers that clients look at: a proof of the
    combined form carries it as the nonce of DPoP (section 7.4)."""
    fresh = issue(sealer, now=now)
    headers = {CHALLENGE_HEADER: fresh, NONCE_HEADER: fresh}
    return OAuthError("use_attestation_challenge", detail, cause=cause, headers=headers)
