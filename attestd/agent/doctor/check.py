"""How is one thing about this machine, and what mends it?"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from attestd.agent.errors import plain

Verdict = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: how it is, what was found, and what to do about it, which is empty where
    nothing needs to be done."""

    verdict: Verdict
    what: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        """One line for a terminal; part of it may be what a server or a TPM says."""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.verdict:<4}  {self.what:<12}  {self.found}{fix}"

    def told(self) -> dict[str, Any]:
        return asdict(self)


def ok(what: str, found: str) -> Check:
    return Check("ok", what, found)


def warn(what: str, found: str, fix: str) -> Check:
    return Check("warn", what, found, fix)


def fail(what: str, found: str, fix: str) -> Check:
    return Check("FAIL", what, found, fix)


def said(value: object) -> str:
    """What somebody else says, so that it may stand in a line."""
    return plain(value).strip() or "nothing"
