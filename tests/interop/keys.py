"""What does joserfc make of the agent's key: proofs and assertions that no code of ours had a hand in?"""

import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey


class Signer:
    """A P-256 key from PEM."""

    def __init__(self, pem: str) -> None:
        self.key = ECKey.import_key(pem)

    @property
    def thumbprint(self) -> str:
        return str(self.key.thumbprint())

    def signed(self, typ: str, claims: dict[str, Any], **header: Any) -> str:
        shown = {"alg": "ES256", "typ": typ, **header}
        return str(jwt.encode(shown, claims, self.key, algorithms=["ES256"]))

    def assertion(self, client_id: str, audience: str, *, typ: str = "client-authentication+jwt") -> str:
        """An assertion of the client about itself (RFC 7523)."""
        now = int(time.time())
        claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": _fresh()}
        return self.signed(typ, {**claims, "iat": now, "exp": now + 60})

    def dpop(self, url: str, nonce: str | None, *, token: str | None = None, method: str = "POST") -> str:
        """A DPoP proof (RFC 9449); `token` is the access token beside it."""
        claims: dict[str, Any] = {"htm": method, "htu": url, "jti": _fresh(), "iat": int(time.time())}
        if nonce is not None:
            claims["nonce"] = nonce
        if token is not None:
            claims["ath"] = hashed(token)
        return self.signed("dpop+jwt", claims, jwk=self.key.as_dict(private=False))

    def attestation_pop(self, audience: str, challenge: str, **changed: Any) -> str:
        """The proof beside a client attestation."""
        claims = {"aud": audience, "jti": _fresh(), "iat": int(time.time()), "challenge": challenge}
        return self.signed("oauth-client-attestation-pop+jwt", {**claims, **changed})

    def wpt(self, url: str, wit: str, **changed: Any) -> str:
        """A Workload Proof Token beside this WIT."""
        claims = {"aud": url, "exp": int(time.time()) + 60, "jti": _fresh(), "wth": hashed(wit)}
        return self.signed("wpt+jwt", {**claims, **changed})


def hashed(token: str) -> str:
    """`ath` of RFC 9449 and `wth` of the Workload Proof Token."""
    return b64url(hashlib.sha256(token.encode()).digest())


def b64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _fresh() -> str:
    return secrets.token_urlsafe(16)
