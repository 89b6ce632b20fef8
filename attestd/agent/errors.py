"""Why did it not work, and who can do something about it?

What the machine's own TPM refuses is a DeviceError; these are about the far side and about the operator.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = 200


class Unreachable(Exception):
    """The server did not answer, or not as this protocol does; trying again later may help."""


class Misconfigured(Exception):
    """What the operator named or kept cannot be used: an address, a CA, a file."""


class Refusal(Exception):
    """The server said no: the members of its problem document, and when to come back, in seconds, if it
    said so."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: int | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.problem = problem
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """The wire code, or empty for an answer of another service."""
        code = self.problem.get("code", "")
        return code if isinstance(code, str) else ""


def plain(told: object) -> str:
    """What a server says, short and printable, so that it may reach a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(told)[:_SHOWN])
