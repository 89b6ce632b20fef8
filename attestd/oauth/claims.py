"""What do a token's claims say, once their types are checked?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestd.oauth.errors import TokenError

MAX_TEXT = 2048
"""Characters of any claim that we compare or keep; a SPIFFE ID may have as many."""
MAX_JTI = 256
SKEW_SECONDS = 5
"""How far the clock of whoever made the token may be ahead of ours where no window says otherwise."""
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The members of a claims set (RFC 7519, section 4); TokenError `claim` when one is not of its type."""

    members: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A claim that must be there and be text."""
        value = self.members.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
            raise TokenError("claim", f"{name} is text of 1 to {MAX_TEXT} characters")
        return value

    def optional_text(self, name: str) -> str | None:
        """The same for one that may be left out; null is not left out."""
        return self.text(name) if name in self.members else None

    def token_id(self) -> str:
        """`jti`, which must be there; long enough for any random value and no longer."""
        jti = self.text("jti")
        if len(jti) > MAX_JTI:
            raise TokenError("claim", f"jti has at most {MAX_JTI} characters")
        return jti

    def time(self, name: str) -> int:
        """NumericDate in whole seconds; converted to milliseconds."""
        value = self.members.get(name)
        # bool is an int to Python, and `true` is no time.
        if value.__class__ is not int or not 0 < value <= _LAST_SECOND:
            raise TokenError("claim", f"{name} is a time in whole seconds since 1970")
        return int(value) * 1000

    def optional_time(self, name: str) -> int | None:
        """The same for one that may be left out."""
        return self.time(name) if name in self.members else None

    def audience(self) -> tuple[str, ...]:
        """`aud` as a list: text, or an array of texts that is not empty (RFC 7519, 4.1.3)."""
        value = self.members.get("aud")
        audience = [value] if isinstance(value, str) else value
        if not isinstance(audience, list) or not audience:
            raise TokenError("aud", "aud is text, or an array of texts")
        if not all(isinstance(each, str) and each for each in audience):
            raise TokenError("aud", "aud is text, or an array of texts")
        return tuple(audience)

    def require_sole_audience(self, expected: str) -> None:
        """`aud` names `expected` and nobody else, as text or as an array of one."""
        if self.audience() != (expected,):
            raise TokenError("aud", f"aud is {expected} and nothing else")

    def require_current(self, *, now: int) -> int:
        """`exp` is there and ahead, `nbf` and `iat`, where given, are not; returns `exp` in milliseconds."""
        expires_at = self.time("exp")
        if expires_at <= now:
            raise TokenError("expired", "the token has expired")
        for name in ("nbf", "iat"):
            if (self.optional_time(name) or 0) > now + SKEW_SECONDS * 1000:
                raise TokenError("not_yet", f"{name} lies ahead")
        return expires_at

    def require_short(self, *, now: int, seconds: int) -> int:
        """The same for a token that is made for one request: it ends within `seconds`."""
        expires_at = self.require_current(now=now)
        if expires_at > now + (seconds + SKEW_SECONDS) * 1000:
            raise TokenError("lifetime", f"exp lies at most {seconds} s ahead")
        return expires_at

    def require_recent(self, *, now: int, seconds: int) -> int:
        """`iat` is there and lies within `seconds` of now, on either side; returns it in milliseconds."""
        issued_at = self.time("iat")
        if abs(now - issued_at) > seconds * 1000:
            raise TokenError("iat", f"iat lies within {seconds} s of the server's time")
        return issued_at
