"""Which keys do others sign with, whom an operator told us to trust?

A JWK Set (RFC 7517) of a users' OpenID Provider or of a resource, from a file or fetched from the provider
itself. Keys that are too weak or of a kind that is not used here are left out, so that nothing is ever
verified with them; a set that holds private keys is none.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from attestd.issue.jwk import PublicKey, read_jwk
from attestd.oauth import jose
from attestd.oauth.claims import Claims
from attestd.oauth.errors import TokenError
from attestd.oauth.jose import Unverified
from attestd.wire import Problem, load_json
from tpm.errors import PolicyError, StructureError

MAX_KEYS: Final = 64
FRESH_MS: Final = 10 * 60 * 1000
"""How long a fetched set is used before it is fetched again."""
STALE_MS: Final = 60 * 60 * 1000
"""How long it is used while fetching it again fails; a key that was withdrawn ends with this at the
latest."""
AGAIN_MS: Final = 30 * 1000
"""How soon it is fetched again for a key that is not in it, or after a failure: strangers choose the
`kid`."""

_EC_ALGS: Final = {"P-256": "ES256", "P-384": "ES384"}
_RSA_ALGS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGS: Final = (*_EC_ALGS.values(), *_RSA_ALGS)
"""What tokens of others may be signed with; each key with those of its type alone."""
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key and the algorithms that it verifies."""

    kid: str | None
    algs: tuple[str, ...]
    public: PublicKey


Keys = tuple[TrustedKey, ...]


class KeySource(Protocol):
    """Where the keys of one party come from."""

    def keys(self, *, now: int, missing: bool = False) -> Keys:
        """The keys as they are known now; `missing` says that a token names one that was not among them."""


def read_key_set(raw: bytes) -> Keys:
    """The usable keys of a JWK Set. StructureError when it is none, or names a private key or a `kid`
    twice."""
    try:
        members = load_json(raw).get("keys")
    except Problem as problem:
        raise StructureError("jwks_unreadable", problem.detail) from None
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise StructureError("jwks_unreadable", f'a JWK Set has "keys", a list of at most {MAX_KEYS}')
    found = [key for member in members if (key := _read(member)) is not None]
    named = [key.kid for key in found if key.kid is not None]
    if len(set(named)) != len(named):
        raise StructureError("jwks_ambiguous", "two keys of the set have one kid")
    return tuple(found)


def verify(source: KeySource, unverified: Unverified, *, now: int) -> Claims:
    """The claims of a token whose issuer's keys `source` has, now said by it. TokenError `key_unknown`,
    `keys_unreachable` or `bad_signature`."""
    return jose.verify(unverified, _find(source, unverified, now=now).public, alg=unverified.alg)


def _find(source: KeySource, unverified: Unverified, *, now: int) -> TrustedKey:
    """The key that the token's header names. Without a `kid` there must be one only that fits."""
    for missing in (False, True):
        fitting = [
            key
            for key in source.keys(now=now, missing=missing)
            if unverified.alg in key.algs and unverified.kid in (None, key.kid)
        ]
        if len(fitting) == 1:
            return fitting[0]
    raise TokenError("key_unknown", "no key of its issuer fits the token's kid and alg")


class FileKeys:
    """A JWK Set in a file, read again when it is replaced."""

    def __init__(self, path: Path) -> None:
        """Reads it: PolicyError says what is wrong with the file, which stops the start."""
        self._path = path
        self._known = self._read()

    def keys(self, *, now: int, missing: bool = False) -> Keys:
        if _mark(self._path) != self._known[0]:
            self._known = self._read()
        return self._known[1]

    def _read(self) -> tuple[tuple[int, ...], Keys]:
        mark = _mark(self._path)
        try:
            keys = read_key_set(self._path.read_bytes())
        except OSError as error:
            raise _unreadable(self._path, error) from None
        except StructureError as error:
            raise PolicyError("jwks_unreadable", f"{self._path}: {error.detail}") from None
        if not keys:
            raise PolicyError("jwks_unreadable", f"{self._path} has no key that can be used")
        return mark, keys


class FetchedKeys:
    """A JWK Set that its issuer publishes: kept for a while, fetched by one thread at a time, and not too
    often whatever tokens name."""

    def __init__(self, fetch: Callable[[], Keys]) -> None:
        """`fetch` raises whatever it likes of OSError, StructureError and TokenError; nothing else."""
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: Keys = ()
        self._fetched_at: int | None = None
        self._tried_at: int | None = None

    def keys(self, *, now: int, missing: bool = False) -> Keys:
        if missing or not self._is_fresh(now):
            with self._lock:
                self._look_again(now, missing=missing)
        if self._fetched_at is None or not 0 <= now - self._fetched_at < STALE_MS:
            raise TokenError(
                "keys_unreachable", "the keys of the subject token's issuer cannot be fetched now"
            )
        return self._keys

    def _look_again(self, now: int, *, missing: bool) -> None:
        if not missing and self._is_fresh(now):
            return  # another thread has done it
        if self._tried_at is not None and 0 <= now - self._tried_at < AGAIN_MS:
            return
        self._tried_at = now
        try:
            self._keys = self._fetch()
        except (OSError, StructureError, TokenError):
            return
        self._fetched_at = now

    def _is_fresh(self, now: int) -> bool:
        return self._fetched_at is not None and 0 <= now - self._fetched_at < FRESH_MS


def _read(member: object) -> TrustedKey | None:
    """None for a key that is not used here."""
    if not isinstance(member, dict):
        raise StructureError("jwks_unreadable", "the keys of a set are objects")
    if _PRIVATE & member.keys() and member.get("kty") != "oct":
        raise StructureError("private_jwk", "the set holds a private key; publish public ones only")
    kid, kty, named = member.get("kid"), member.get("kty"), member.get("alg")
    if member.get("use", "sig") != "sig" or not isinstance(kid, str | None):
        return None
    if kty == "EC":
        algs: tuple[str, ...] = tuple(filter(None, [_EC_ALGS.get(str(member.get("crv")))]))
    else:
        algs = _RSA_ALGS if kty == "RSA" else ()
    algs = tuple(alg for alg in algs if named in (None, alg))
    if not algs:
        return None
    wanted = ("crv", "x", "y") if kty == "EC" else ("n", "e")
    plain = {name: member[name] for name in wanted if name in member}
    try:
        alg = algs[0] if kty == "EC" else "PS256"
        return TrustedKey(kid, algs, read_jwk({"kty": kty, "alg": alg, **plain}).public)
    except StructureError:
        return None


def _mark(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> PolicyError:
    return PolicyError("file_unreadable", f"{path}: {error.strerror or error}; name a readable JWK Set")
