"""With which keys does the issuer sign?

Its JWK Set, from its own well-known place and from nowhere that a token names.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestd.resource.caller import Refused
from attestd.resource.jwk import PublicKey, read_jwk
from attestd.resource.strict_json import load_object

PATH: Final = "/.well-known/jwks.json"
FRESH_SECONDS: Final = 300
"""How long a set is used before it is fetched again; a key is published that long before it signs."""
STALE_SECONDS: Final = 3600
"""How long it is used while fetching it again fails."""
AGAIN_SECONDS: Final = 5
"""How soon it is fetched again for a `kid` that is not in it: strangers choose the `kid`."""
RETRY_SECONDS: Final = 1
"""How soon after a failure."""
_MAX_KEYS: Final = 64


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A key with its one algorithm."""

    alg: str
    public: PublicKey


class IssuerKeys:
    """The set, kept for a while and fetched by one thread at a time."""

    def __init__(self, fetch: Callable[[], bytes]) -> None:
        """`fetch` raises OSError when there is no answer."""
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: Mapping[str, IssuerKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False

    def find(self, kid: object, *, alg: str, now: float) -> PublicKey:
        """The key of that name and algorithm; ValueError when there is none, Refused
        `temporarily_unavailable` when the set cannot be had."""
        if not isinstance(kid, str):
            raise ValueError("it does not name its key")
        for missing in (False, True):
            found = self._known(now=now, missing=missing).get(kid)
            if found is not None and found.alg == alg:
                return found.public
        raise ValueError("no key of the issuer has its kid and alg")

    def _known(self, *, now: float, missing: bool) -> Mapping[str, IssuerKey]:
        if missing or not self._is_younger(self._fetched_at, FRESH_SECONDS, now):
            with self._lock:
                if missing or not self._is_younger(self._fetched_at, FRESH_SECONDS, now):
                    self._look_again(now)
        if not self._is_younger(self._fetched_at, STALE_SECONDS, now):
            raise Refused("temporarily_unavailable", "The issuer's keys cannot be fetched now.")
        return self._keys

    def _look_again(self, now: float) -> None:
        if self._is_younger(self._tried_at, RETRY_SECONDS if self._failed else AGAIN_SECONDS, now):
            return
        self._tried_at, self._failed = now, True
        try:
            self._keys = _read_set(self._fetch())
        except (OSError, ValueError):
            return
        self._fetched_at, self._failed = now, False

    @staticmethod
    def _is_younger(moment: float | None, seconds: int, now: float) -> bool:
        return moment is not None and 0 <= now - moment < seconds


def _read_set(raw: bytes) -> Mapping[str, IssuerKey]:
    """The usable keys by kid; ValueError when it is no JWK Set or two keys have one kid."""
    members = load_object(raw).get("keys")
    if not isinstance(members, list) or len(members) > _MAX_KEYS:
        raise ValueError('a JWK Set has "keys", a list')
    found: dict[str, IssuerKey] = {}
    for jwk in members:
        if isinstance(jwk, dict) and jwk.get("use", "sig") == "sig" and (key := _read(jwk)) is not None:
            if jwk["kid"] in found:
                raise ValueError("two keys have one kid")
            found[jwk["kid"]] = key
    return found


def _read(jwk: Mapping[str, Any]) -> IssuerKey | None:
    """None for a key that does not say its name and algorithm, or that is not used here."""
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not isinstance(alg, str):
        return None
    try:
        return IssuerKey(alg, read_jwk(jwk, alg=alg))
    except ValueError:
        return None
