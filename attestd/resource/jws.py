"""What does this compact JWS say, and did that key sign it? (RFC 7515, read as RFC 8725 advises)"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from attestd.resource.jwk import PublicKey, decode
from attestd.resource.strict_json import load_object

MAX_SIZE: Final = 16 * 1024
"""Characters of a token."""

_LAST_SECOND: Final = 253_402_300_799  # the end of the year 9999
# Extensions, encryption and compression that we do not know (RFC 7515, 4.1.11; RFC 7797; RFC 7516).
_UNKNOWN_RULES: Final = frozenset({"crit", "b64", "zip", "enc"})
# Keys, or places where a key would have to be fetched (RFC 7515, 4.1.2 to 4.1.6).
_KEYS_IN_HEADER: Final = frozenset({"jwk", "jku", "x5u", "x5c"})


@dataclass(frozen=True, slots=True)
class Jws:
    """A well-formed JWS whose header is acceptable; believe nothing of it before `verify`."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def alg(self) -> str:
        return str(self.header["alg"])

    def text(self, name: str, *, size: int = 2048) -> str:
        """A claim that must be there and be text; ValueError."""
        value = self.claims.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= size:
            raise ValueError(f"{name} is text of 1 to {size} characters")
        return value

    def time(self, name: str) -> int:
        """NumericDate in whole seconds; ValueError. bool is an int to Python, and `true` is no time."""
        value = self.claims.get(name)
        if value.__class__ is not int or not 0 < value <= _LAST_SECOND:
            raise ValueError(f"{name} is a time in whole seconds since 1970")
        return int(value)


def read(text: str, *, typ: str, algs: Collection[str], embedded_key: bool = False) -> Jws:
    """Read without believing; ValueError says what is wrong, and quotes nothing."""
    # 1. Three parts of canonical base64url, and not too long (a JWE has five).
    if len(text) > MAX_SIZE:
        raise ValueError("it is too long")
    parts = text.split(".", 3)
    if len(parts) != 3:
        raise ValueError("it has not three parts")
    header, claims = _object(parts[0]), _object(parts[1])
    # 2. An algorithm that is expected: no list has `none` or a symmetric one.
    if header.get("alg") not in algs or not isinstance(header["alg"], str):
        raise ValueError(f"alg is none of {', '.join(sorted(algs))}")
    # 3. No rules that we do not know, no key but the one that this kind is there to show.
    allowed = {"jwk"} if embedded_key else set()
    if (_UNKNOWN_RULES | _KEYS_IN_HEADER - allowed) & header.keys():
        raise ValueError("its header has parameters that it must not have")
    if embedded_key and not isinstance(header.get("jwk"), dict):
        raise ValueError("its header shows no key")
    # 4. The kind that is wanted: a media type, whose case does not count (RFC 7515, 4.1.9).
    found = header.get("typ")
    if not isinstance(found, str) or found.lower().removeprefix("application/") != typ:
        raise ValueError(f"its typ is not {typ}")
    return Jws(header, claims, f"{parts[0]}.{parts[1]}".encode("ascii"), decode(parts[2]))


def verify(jws: Jws, key: PublicKey, *, alg: str) -> None:
    """ValueError unless the holder of `key` signed it with `alg`, which is the key's own."""
    if jws.alg != alg:
        raise ValueError("its alg is not the key's")
    if not jwt.get_algorithm_by_name(alg).verify(jws.signing_input, key, jws.signature):
        raise ValueError("its signature does not hold")


def _object(part: str) -> dict[str, Any]:
    try:
        return load_object(decode(part))
    except ValueError:
        raise ValueError("it is not canonical base64url of JSON objects") from None
