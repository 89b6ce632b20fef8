"""Is this token still good? (RFC 7662)

A signature says what was true when it was made. A ban, a refused posture or a new boot ends a token before
it expires, and only its issuer knows: it is asked when it was last asked too long ago, and whoever gets no
answer lets nobody in.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestd.resource.caller import Refused
from attestd.resource.strict_json import load_object
from attestd.resource.token import Token

CAPACITY: Final = 10_000
"""Tokens whose last answer is remembered; the others are asked for again."""
_SAME: Final = ("iss", "sub", "client_id", "jti", "cnf", "act")
"""What the answer may not say differently from the signed token: then it is about another one."""


@dataclass(slots=True)
class _Answer:
    """What the issuer last said of one token. Times in seconds of the guard's clock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    asked_at: float | None = None
    """When the question left, not when the answer came: it is as old as that."""
    active: bool = False
    failed_at: float | None = None


class Introspection:
    """The last answers. Thread-safe: threads with one token wait for one question."""

    def __init__(
        self,
        ask: Callable[[str], bytes],
        *,
        every: float,
        clock: Callable[[], float],
        capacity: int = CAPACITY,
    ) -> None:
        """`ask` posts the token and raises OSError or ValueError when there is no answer; `every` is in
        seconds, and 0 asks at each request."""
        self._ask = ask
        self._every = every
        self._clock = clock
        self._capacity = capacity
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()

    def require_active(self, text: str, token: Token) -> None:
        """Refused `invalid_token`, or `temporarily_unavailable` when the issuer does not answer."""
        began = self._clock()
        answer = self._answer(text)
        with answer.lock:
            if not self._is_young(answer, began):
                if answer.failed_at is not None and answer.failed_at > began:
                    # Whoever held the lock while we waited was told nothing; so would we be.
                    raise _unreachable()
                self._ask_again(text, token, answer)
            if not answer.active:
                raise Refused("invalid_token", "The access token was ended by its issuer.")

    def _is_young(self, answer: _Answer, began: float) -> bool:
        """Asked since we came, or not too long before. A clock that went back makes no answer younger."""
        if answer.asked_at is None:
            return False
        age = self._clock() - answer.asked_at
        return 0 <= age < self._every or (age >= 0 and answer.asked_at > began)

    def _ask_again(self, text: str, token: Token, answer: _Answer) -> None:
        asked_at = self._clock()
        try:
            said = load_object(self._ask(text))
        except (OSError, ValueError):
            answer.failed_at = self._clock()
            raise _unreachable() from None
        answer.active = _confirms(said, token)
        answer.asked_at, answer.failed_at = asked_at, None

    def _answer(self, text: str) -> _Answer:
        digest = hashlib.sha256(text.encode()).digest()
        with self._lock:
            found = self._answers.setdefault(digest, _Answer())
            self._answers.move_to_end(digest)
            if len(self._answers) > self._capacity:
                self._answers.popitem(last=False)
        return found


def _confirms(said: Mapping[str, Any], token: Token) -> bool:
    if said.get("active") is not True:
        return False
    return all(said.get(name) == token.claims.get(name) for name in _SAME)


def _unreachable() -> Refused:
    return Refused("temporarily_unavailable", "The token's issuer cannot be asked now; try again later.")
