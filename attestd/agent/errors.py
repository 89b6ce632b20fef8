"""Why did it not work, and who can do something about it?

What the machine's own TPM refuses is a DeviceError; these are about the far side and about the operator.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = 200


class Unreachable(Exception):
    """The server did not answer, or not as this protocol does; trying again later may help. `retry_after`:
    when, in seconds, if it said so."""

    def __init__(self, why: str, *, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Misconfigured(Exception):
    """What the operator named or kept cannot be used: an address, a CA, a file."""


class NotEnrolled(Misconfigured):
    """This machine is no device of any service yet."""


class Refusal(Exception):
    """The server said no: the members of its problem document or of its OAuth error, when to come back, in
    seconds, if it said so, and the nonce for the next proof, if it gave one."""

    def __init__(
        self,
        status: int,
        problem: Mapping[str, Any],
        retry_after: int | None = None,
        nonce: str | None = None,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        self.nonce = nonce

    def __str__(self) -> str:
        told = self.problem.get("detail") or self.problem.get("error_description") or "no reason was given"
        return f"refused ({plain(self.code or self.error or self.status)}): {plain(told)}"

    @property
    def code(self) -> str:
        """The wire code, or empty for an answer of another service."""
        return self._word("code")

    @property
    def error(self) -> str:
        """The error of OAuth (RFC 6749, section 5.2), or empty for an answer of another endpoint."""
        return self._word("error")

    def _word(self, name: str) -> str:
        word = self.problem.get(name, "")
        return word if isinstance(word, str) else ""


def plain(told: object) -> str:
    """What a server says, short and printable, so that it may reach a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(told)[:_SHOWN])
