"""What does this compact JWS say, and did that key sign it?

RFC 7515, read as RFC 8725 advises: one algorithm per key, chosen by whoever knows the key; the kind by `typ`;
keys from where we know them and never from where a token says. Nothing is ever fetched.
"""

from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestd.issue.jwk import PublicKey, base64url
from attestd.oauth.claims import Claims
from attestd.oauth.errors import TokenError
from attestd.wire import Problem, load_json

MAX_SIZE = 16 * 1024
"""Bytes of a token. Ours have about one thousand; a proof by a large RSA key has two."""

PROOF_ALGS = ("ES256", "ES384", "PS256")
"""What the keys sign with to which our credentials are bound."""
ISSUER_ALGS = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
"""What issuers may sign with: all that RFC 7518 has for signatures with a private key."""

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: Mapping[str, tuple[str, int]] = {
    "ES256": ("secp256r1", 32),
    "ES384": ("secp384r1", 48),
    "ES512": ("secp521r1", 66),
}
# RFC 7515, 4.1.11 and RFC 7797: extensions that we must understand, and know none of. RFC 7516, 4.1.2 and
# 4.1.3: encryption and compression.
_UNKNOWN_RULES = frozenset({"crit", "b64", "zip", "enc"})
# RFC 7515, 4.1.2 to 4.1.6: keys, or places where a key would have to be fetched.
_KEYS_IN_HEADER = frozenset({"jwk", "jku", "x5u", "x5c"})
_FAILURES = (InvalidSignature, UnsupportedAlgorithm, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed JWS whose header is acceptable. Nobody has signed it yet, for all we know."""

    token: str = field(repr=False)
    header: Mapping[str, Any]
    claims: Claims
    """To find the key by; believe nothing of it."""
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def alg(self) -> str:
        return str(self.header["alg"])

    @property
    def kid(self) -> str | None:
        kid = self.header.get("kid")
        return None if kid is None else str(kid)


def read(
    token: str,
    *,
    typ: Collection[str | None],
    algs: Collection[str] = PROOF_ALGS,
    embedded_key: bool = False,
    max_size: int = MAX_SIZE,
) -> Unverified:
    """Read without believing. `typ` holds the kinds that are wanted, with None where the parameter may be
    left out; with `embedded_key` the header may, and must, have a `jwk`. TokenError otherwise."""
    # 1. Three parts of canonical base64url, and not too many of them (a JWE has five: RFC 7516, section 3).
    if len(token) > max_size:
        raise TokenError("oversized", f"a token has at most {max_size} characters")
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise TokenError("not_compact", "a compact JWS has three parts")
    raw_header, raw_claims, signature = (_decode(part) for part in parts)
    # 2. The header is one JSON object without doubtful members.
    header = _object(raw_header, "header")
    _check_header(header, typ=typ, algs=algs, embedded_key=embedded_key)
    # 3. So are the claims.
    claims = Claims(_object(raw_claims, "claims"))
    return Unverified(token, header, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def verify(unverified: Unverified, key: PublicKey, *, alg: str) -> Claims:
    """The claims, now said by the holder of `key`. `alg` is the key's own and not the token's choice.
    TokenError `alg` or `bad_signature`. What the claims say is not checked."""
    # 1. The token was made with the key's algorithm.
    if unverified.alg != alg:
        raise TokenError("alg", f"the key signs with {alg}")
    # 2. The signature holds.
    try:
        _verify(key, alg, unverified.signature, unverified.signing_input)
    except _FAILURES:
        raise TokenError("bad_signature", "the signature does not hold under the key") from None
    return unverified.claims


def _check_header(
    header: Mapping[str, Any], *, typ: Collection[str | None], algs: Collection[str], embedded_key: bool
) -> None:
    # 1. An algorithm that whoever asks expects (RFC 8725, 3.1): no list has `none` or a symmetric one.
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in algs or alg not in ISSUER_ALGS:
        raise TokenError("alg", f"alg is one of {', '.join(algs)}")
    # 2. No rules that we do not know.
    if unknown := _UNKNOWN_RULES & header.keys():
        raise TokenError("header_unknown", f"the header must not have {', '.join(sorted(unknown))}")
    # 3. No key but the one that this kind of token is there to show (RFC 8725, 3.10).
    allowed = {"jwk"} if embedded_key else set()
    if keys := (_KEYS_IN_HEADER & header.keys()) - allowed:
        raise TokenError("header_key", f"the header must not have {', '.join(sorted(keys))}")
    if embedded_key and not isinstance(header.get("jwk"), dict):
        raise TokenError("header_key", "the header shows the key as jwk")
    # 4. The kind that is wanted (RFC 8725, 3.11).
    if (found := _kind(header)) not in typ:
        wanted = " or ".join(each or "no" for each in typ)
        raise TokenError("typ", f"typ is {wanted}, not {found or 'missing'}")
    # 5. A key identifier is text.
    if not isinstance(header.get("kid", ""), str):
        raise TokenError("header_malformed", "kid is text")


def _kind(header: Mapping[str, Any]) -> str | None:
    """`typ` is a media type: its case does not count, `application/` may be left out (RFC 7515, 4.1.9)."""
    if "typ" not in header:
        return None
    typ = header["typ"]
    if not isinstance(typ, str):
        raise TokenError("typ", "typ is text")
    return typ.lower().removeprefix("application/")


def _decode(part: str) -> bytes:
    try:
        raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raw = b""
    if not raw or base64url(raw) != part:
        raise TokenError("base64", "each part is canonical base64url without padding")
    return raw


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        return load_json(raw)
    except Problem as problem:
        raise TokenError(f"{what}_malformed", f"the {what}: {problem.detail}") from None


def _verify(key: PublicKey, alg: str, signature: bytes, message: bytes) -> None:
    """RFC 7518, 3.3 to 3.5; any exception of `_FAILURES` when it does not hold."""
    digest = _HASHES[alg[2:]]
    match alg[:2], key:
        case "ES", ec.EllipticCurvePublicKey():
            curve, size = _CURVES[alg]
            if key.curve.name != curve or len(signature) != 2 * size:
                raise ValueError("another curve, or not r and s at full width")
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))
        case "PS", rsa.RSAPublicKey():
            pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
            key.verify(signature, message, pss, digest)
        case "RS", rsa.RSAPublicKey():
            key.verify(signature, message, padding.PKCS1v15(), digest)
        case _:
            raise ValueError(f"the key cannot make {alg} signatures")
