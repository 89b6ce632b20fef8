"""Which public key is this JWK, and is it one to verify with?

RFC 7517 and RFC 7518, section 6: EC and RSA keys; nothing symmetric, nothing private, nothing weak.
"""

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_CURVES: Final[Mapping[str, tuple[str, ec.EllipticCurve]]] = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}
_RSA_ALGS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_BITS: Final = range(2048, 8193)
_RSA_EXPONENT: Final = 65537
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_jwk(jwk: Mapping[str, Any], *, alg: str) -> PublicKey:
    """The key that signs with `alg`; ValueError when it is none, weak, or not public only."""
    if _PRIVATE & jwk.keys():
        raise ValueError("a public key has no private members")
    if jwk.get("alg", alg) != alg:
        raise ValueError("the key is for another algorithm")
    if alg in _CURVES:
        return _ec_key(jwk, *_CURVES[alg])
    if alg in _RSA_ALGS:
        return _rsa_key(jwk)
    raise ValueError("the algorithm is none of a public key")


def thumbprint(key: PublicKey) -> str:
    """RFC 7638 with SHA-256, base64url; of the key and not of how it was written."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        members = {"kty": "RSA", "n": _encode(numbers.n), "e": _encode(numbers.e)}
    else:
        point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
        names = {curve.name: name for name, curve in _CURVES.values()}
        x, y = _encode(point.x, size), _encode(point.y, size)
        members = {"kty": "EC", "crv": names[key.curve.name], "x": x, "y": y}
    return sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode())


def sha256(raw: bytes) -> str:
    """base64url of the SHA-256: `ath`, `x5t#S256`, thumbprints."""
    return base64url(hashlib.sha256(raw).digest())


def base64url(raw: bytes) -> str:
    """Without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode(text: object) -> bytes:
    """The bytes of unpadded base64url that is not empty and written in its one way; ValueError otherwise."""
    if not isinstance(text, str) or _BASE64URL.fullmatch(text) is None:
        raise ValueError("not base64url")
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def _ec_key(jwk: Mapping[str, Any], name: str, curve: ec.EllipticCurve) -> PublicKey:
    if jwk.get("kty") != "EC" or jwk.get("crv") != name:
        raise ValueError("the key is on another curve")
    x, y = decode(jwk.get("x")), decode(jwk.get("y"))
    if {len(x), len(y)} != {(curve.key_size + 7) // 8}:
        raise ValueError("a coordinate is not of the curve's size")
    # Raises ValueError for a point that is not on the curve.
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()


def _rsa_key(jwk: Mapping[str, Any]) -> PublicKey:
    if jwk.get("kty") != "RSA":
        raise ValueError("the key is no RSA key")
    modulus, exponent = int.from_bytes(decode(jwk.get("n"))), int.from_bytes(decode(jwk.get("e")))
    if modulus.bit_length() not in _RSA_BITS or exponent != _RSA_EXPONENT:
        raise ValueError("an RSA key has at least 2048 bits and the exponent 65537")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _encode(value: int, size: int | None = None) -> str:
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8))
