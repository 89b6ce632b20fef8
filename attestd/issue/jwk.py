"""Which key is a credential to be bound to, and is it one that may be?

A JWK (RFC 7517, RFC 7518 section 6) is read strictly: `kty`, `alg` and exactly the public members of its
type, each in its one encoding. A key that was proven to live in a TPM arrives as a public key instead; its
strength is judged by the same rules.
"""

import hashlib
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tpm.errors import NoncanonicalError, StructureError
from tpm.verify.endorsement_strength import has_roca_fingerprint

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_CURVES: Mapping[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_CURVE_OF_ALG = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_ALGS = frozenset({"RS256", "PS256", "RS384", "PS384", "RS512", "PS512"})
_REQUEST_ALGS = frozenset({"ES256", "ES384", "PS256"})
_MEMBERS = {"EC": frozenset({"kty", "alg", "crv", "x", "y"}), "RSA": frozenset({"kty", "alg", "n", "e"})}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_RSA_BITS = range(2048, 4097)
_RSA_EXPONENT = 65537
_SMALL_PRIMES = math.prod(n for n in range(3, 1000) if all(n % d for d in range(2, math.isqrt(n) + 1)))


@dataclass(frozen=True, slots=True)
class BoundKey:
    """A public key that a credential may name; comes from `read_jwk` or `from_public_key` alone."""

    alg: str
    """The JWS algorithm of its proofs, e.g. `ES256`."""
    public: PublicKey
    jwk: Mapping[str, str]
    """The public JWK without `alg`."""

    @property
    def thumbprint(self) -> str:
        """RFC 7638, SHA-256, base64url without padding."""
        return thumbprint(self.jwk)

    @property
    def members(self) -> dict[str, str]:
        """The public JWK with `alg`, as `cnf` carries it and `read_jwk` reads it."""
        return {**self.jwk, "alg": self.alg}


def read_jwk(value: Mapping[str, object]) -> BoundKey:
    """The key that a request names. StructureError `bad_jwk`, `private_jwk`, `bad_key`, `weak_key`;
    NoncanonicalError when a member decodes but is not written in its one way. Whether anybody holds the
    private half is not asked here."""
    # 1. Text members only, a known type, one of the algorithms that requests may name.
    members = _text_members(value)
    kty, alg = members.get("kty", ""), members.get("alg", "")
    if kty not in _MEMBERS or alg not in _REQUEST_ALGS:
        raise StructureError("bad_jwk", "a key has kty EC or RSA and alg ES256, ES384 or PS256")

    # 2. Exactly the public members of the type.
    if private := _PRIVATE_MEMBERS & members.keys():
        raise StructureError("private_jwk", f"send public keys only: leave out {', '.join(sorted(private))}")
    if members.keys() != _MEMBERS[kty]:
        raise StructureError(
            "bad_jwk", f"an {kty} key has exactly the members {', '.join(sorted(_MEMBERS[kty]))}"
        )

    # 3. The key is one of its algorithm, and strong enough.
    public = _ec_key(members) if kty == "EC" else _rsa_key(members)
    return from_public_key(public, alg=alg)


def from_public_key(public: PublicKey, *, alg: str) -> BoundKey:
    """The same for a key whose public half is already at hand. StructureError `bad_jwk` when `alg` is not
    the key's, `weak_key` when it is too weak."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        jwk = public_jwk(public)
        if _CURVE_OF_ALG.get(alg) != jwk["crv"]:
            raise StructureError("bad_jwk", f"a key on {jwk['crv']} is no key of {alg}")
        return BoundKey(alg, public, jwk)
    if alg not in _RSA_ALGS:
        raise StructureError("bad_jwk", f"an RSA key is no key of {alg}")
    _refuse_weak(public.public_numbers())
    return BoundKey(alg, public, public_jwk(public))


def public_jwk(public: PublicKey) -> dict[str, str]:
    """The members that RFC 7638 demands, and no others; StructureError `bad_jwk` for a curve that has no
    name here."""
    if isinstance(public, rsa.RSAPublicKey):
        rsa_numbers = public.public_numbers()
        return {"kty": "RSA", "n": _encode_int(rsa_numbers.n), "e": _encode_int(rsa_numbers.e)}
    numbers = public.public_numbers()
    for name, curve in _CURVES.items():
        if curve.name == public.curve.name:
            size = (curve.key_size + 7) // 8
            return {
                "kty": "EC",
                "crv": name,
                "x": _encode_int(numbers.x, size),
                "y": _encode_int(numbers.y, size),
            }
    raise StructureError("bad_jwk", f"keys on {public.curve.name} are not used here")


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638 with SHA-256, base64url without padding; `jwk` holds the required members and no others."""
    return base64url(thumbprint_digest(jwk))


def thumbprint_digest(jwk: Mapping[str, str]) -> bytes:
    """The 32 bytes of the thumbprint."""
    text = json.dumps(dict(jwk), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def base64url(raw: bytes) -> str:
    """base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _text_members(value: Mapping[str, object]) -> dict[str, str]:
    members: dict[str, str] = {}
    for name, member in value.items():
        if not isinstance(member, str):
            raise StructureError("bad_jwk", f"the members of a key are text; {name!r} is not")
        members[name] = member
    return members


def _ec_key(members: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(members["crv"])
    if curve is None or _CURVE_OF_ALG.get(members["alg"]) != members["crv"]:
        raise StructureError("bad_jwk", "ES256 goes with P-256 and ES384 with P-384")
    size = (curve.key_size + 7) // 8
    x, y = _decode(members["x"]), _decode(members["y"])
    if len(x) != size or len(y) != size:
        raise StructureError(
            "bad_jwk", f"x and y have {size} bytes on {members['crv']}, leading zeros included"
        )
    try:
        return ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
        ).public_key()
    except ValueError:
        raise StructureError("bad_key", "the point is not on the curve") from None


def _rsa_key(members: Mapping[str, str]) -> rsa.RSAPublicKey:
    if members["alg"] not in _RSA_ALGS:
        raise StructureError("bad_jwk", "an RSA key has alg PS256")
    modulus, exponent = _decode(members["n"]), _decode(members["e"])
    if modulus[0] == 0 or exponent[0] == 0:
        raise NoncanonicalError("leading_zero", "n and e are written without leading zero bytes")
    numbers = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
    _refuse_weak(numbers)
    try:
        return numbers.public_key()
    except ValueError:
        raise StructureError("bad_key", "n and e are no RSA key") from None


def _refuse_weak(numbers: rsa.RSAPublicNumbers) -> None:
    if numbers.n.bit_length() not in _RSA_BITS:
        raise StructureError("weak_key", f"an RSA key has {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits")
    if numbers.e != _RSA_EXPONENT:
        raise StructureError("weak_key", f"an RSA key has the exponent {_RSA_EXPONENT}")
    # A modulus with a small factor is no product of two large primes, and anybody can factor it.
    if numbers.n % 2 == 0 or math.gcd(numbers.n, _SMALL_PRIMES) != 1:
        raise StructureError("weak_key", "the modulus has a small factor")
    if has_roca_fingerprint(numbers.n):
        raise StructureError(
            "weak_key", "the key was made by Infineon's broken library (ROCA, CVE-2017-15361)"
        )


def _decode(text: str) -> bytes:
    """Bytes of canonical, unpadded, non-empty base64url."""
    if text.endswith("=") and _BASE64URL.fullmatch(text.rstrip("=")):
        raise NoncanonicalError("padding", "base64url in a key is written without padding")
    if _BASE64URL.fullmatch(text) is None or len(text) % 4 == 1:
        raise StructureError("bad_jwk", "the members of a key are base64url")
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(raw) != text:
        raise NoncanonicalError("unused_bits", "the last character of base64url leaves no bits over")
    return raw


def _encode_int(value: int, size: int | None = None) -> str:
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))
