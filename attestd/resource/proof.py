"""Does the sender of this request hold the key that its token is bound to? (RFC 9449, RFC 8705)"""

import hmac
from dataclasses import dataclass
from typing import Final

from attestd.resource.caller import Refused
from attestd.resource.jwk import read_jwk, sha256, thumbprint
from attestd.resource.jws import Jws, read, verify
from attestd.resource.nonce import Nonces
from attestd.resource.uri import normalise

ALGS: Final = ("ES256", "ES384", "PS256")
"""What the keys sign with to which attestd binds tokens."""
TYP: Final = "dpop+jwt"
_MAX_JTI: Final = 256


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proof must be for: this method, this URL, this token, bound to the key of this thumbprint."""

    method: str
    url: str
    token: str
    jkt: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds; comes from `check_proof` alone. It is not spent yet."""

    key: bytes
    """What is spent."""
    until: int
    """When it is too old anyway, in seconds since the epoch."""


def check_proof(text: str, expected: Expected, *, window: int, nonces: Nonces | None, now: float) -> Proof:
    """The checks of RFC 9449, section 4.3. Refused `invalid_dpop_proof` or `use_dpop_nonce`. That it is new
    is for whoever spends it."""
    try:
        # 2, 3, 5. Well-formed, of this kind, signed with a private key.
        jws = read(text, typ=TYP, algs=ALGS, embedded_key=True)
        # 6, 7. The key that it shows is public and strong, and signed it.
        key = read_jwk(jws.header["jwk"], alg=jws.alg)
        verify(jws, key, alg=jws.alg)
        # 4, 8, 9. For this method, as it is spelled, and for this URL, as it is configured.
        if jws.text("htm") != expected.method:
            raise ValueError("htm is not the request's method")
        if normalise(jws.text("htu")) != normalise(expected.url):
            raise ValueError("htu is not the URL of this resource")
        # 11. Made just now.
        issued_at = jws.time("iat")
        if abs(now - issued_at) > window:
            raise ValueError(f"iat is not within {window} s of now")
        # 12. For the token beside it.
        if not hmac.compare_digest(jws.text("ath").encode(), sha256(expected.token.encode()).encode()):
            raise ValueError("ath is not the hash of the token")
        jti = jws.text("jti", size=_MAX_JTI)
    except ValueError as error:
        raise Refused("invalid_dpop_proof", f"The DPoP proof does not hold: {error}.") from None
    # 12. By the key that the token is bound to.
    if not hmac.compare_digest(thumbprint(key).encode(), expected.jkt.encode()):
        raise Refused("invalid_token", "The token is bound to another key than the proof's.")
    # 10. With a nonce of ours. Last, because the answer invites another try.
    _check_nonce(jws, nonces, now=now)
    # With the key, because two agents may choose one jti; and no separator is in a thumbprint.
    return Proof(f"{expected.jkt} {jti}".encode(), issued_at + window)


def check_certificate(certificate: bytes | None, *, expected_x5t: str) -> None:
    """RFC 8705, section 3: the certificate of the TLS connection is the one that the token is bound to. Its
    chain need not be judged. Refused `invalid_token`."""
    if certificate is None or not hmac.compare_digest(sha256(certificate).encode(), expected_x5t.encode()):
        raise Refused(
            "invalid_token", "The token is bound to a certificate that this connection has not shown."
        )


def _check_nonce(jws: Jws, nonces: Nonces | None, *, now: float) -> None:
    if nonces is not None and not nonces.holds(jws.claims.get("nonce"), now=now):
        raise Refused("use_dpop_nonce", "Make the DPoP proof again with the nonce of this answer.")
