"""Is this JWT-SVID what it says, for this audience and now?

The JWT-SVID standard (sections 2, 3 and 5) with the trust domain's own keys and nothing that the token brings
itself. Other trust domains are not known here: their tokens are refused.
"""

import json
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.types import Options

from attestd.agent.holdings import Bundle
from attestd.spiffe import trust_domain_of, validate_workload_id

LEEWAY_SECONDS = 30
"""By which the clocks of two machines may differ."""
MAX_BYTES = 16 * 1024

_KINDS = {
    **{f"ES{size}": ("EC", curve) for size, curve in ((256, "P-256"), (384, "P-384"), (512, "P-521"))},
    **{f"{padding}{size}": ("RSA", None) for padding in ("RS", "PS") for size in (256, 384, 512)},
}
"""By algorithm of the standard, which keys it takes: `kty` and `crv`."""
_HEADER = frozenset({"alg", "kid", "typ"})
_OPTIONS: Options = {
    "require": ["sub", "aud", "exp"],
    # By our own clock, below.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}
_RSA_BITS = 2048


class NotValid(Exception):
    """The token does not hold; in one sentence why."""


@dataclass(frozen=True, slots=True)
class Validated:
    spiffe_id: str
    claims: dict[str, Any]


def validate_jwt_svid(token: str, *, expected_audience: str, bundle: Bundle, now: int) -> Validated:
    """Whose token it is, with its claims; NotValid otherwise."""
    try:
        return _validated(token, expected_audience, bundle, now)
    except (jwt.PyJWTError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise NotValid(f"the token does not hold: {error}") from None


def _validated(token: str, audience: str, bundle: Bundle, now: int) -> Validated:
    # 1. It has a size and a header that the standard allows, and an algorithm of its list.
    if len(token) > MAX_BYTES:
        raise NotValid(f"a token has at most {MAX_BYTES} characters")
    header = jwt.get_unverified_header(token)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _KINDS:
        raise NotValid("its algorithm is none of a JWT-SVID's")
    if not header.keys() <= _HEADER or header.get("typ", "JWT") not in ("JWT", "JOSE"):
        raise NotValid("its header has what a JWT-SVID's must not have")
    # 2. A key of our trust domain for this algorithm signed it, for this audience.
    claims = _signed_claims(token, algorithm, _keys(bundle.jwt_keys, header), audience)
    # 3. It is still valid.
    _check_times(claims, now)
    # 4. It names a workload of the trust domain whose keys these are.
    subject = claims["sub"]
    validate_workload_id(subject)
    if trust_domain_of(subject) != bundle.trust_domain:
        raise NotValid(f"it is not of the trust domain {bundle.trust_domain}")
    return Validated(subject, claims)


def _keys(published: str, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that may have signed: the one of the token's name, or all if it names none. A key whose private
    half is published says nothing of who signed."""
    algorithm, named = header["alg"], header.get("kid")
    kind, curve = _KINDS[algorithm]
    return [
        key
        for key in json.loads(published)["keys"]
        if (key.get("kty"), key.get("crv")) == (kind, curve)
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "jwt-svid") == "jwt-svid"
        and "d" not in key
        and ("kid" not in header or key.get("kid") == named)
    ]


def _signed_claims(token: str, algorithm: str, keys: list[dict[str, Any]], audience: str) -> dict[str, Any]:
    for written in keys:
        key = jwt.PyJWK(written, algorithm).key
        if getattr(key, "key_size", 0) < _RSA_BITS and algorithm[0] != "E":
            continue
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=audience,
                options=_OPTIONS,
            )
        except jwt.InvalidSignatureError:
            continue
    raise NotValid("no key of the trust domain signed it")


def _check_times(claims: dict[str, Any], now: int) -> None:
    until, since = _time(claims, "exp", None), _time(claims, "nbf", 0)
    if now >= until + LEEWAY_SECONDS * 1000:
        raise NotValid("it has expired")
    if now < since - LEEWAY_SECONDS * 1000:
        raise NotValid("it is not valid yet")


def _time(claims: dict[str, Any], name: str, absent: int | None) -> float:
    """Milliseconds."""
    value = claims.get(name, absent)
    if value.__class__ not in (int, float):
        raise NotValid(f"its {name} is no time")
    return float(value) * 1000
