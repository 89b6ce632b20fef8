"""Has a person looked at this root's fingerprint before it is trusted, and where does the root come from?

Whoever holds a root's key can admit devices: the SHA-256 is to be compared with what its maker publishes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import click

from attestd.cli.failures import Failure, Unusable
from attestd.clock import rfc3339
from tpm.verify.certificate import Certificate, key_name, printable

Command = TypeVar("Command", bound=Callable[..., Any])
Reviewed = Literal["fingerprint", "yes", "asked", "no"]
Ask = Callable[[str], bool]

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
NOTE_LIMIT = 4096
_NOTED = ("imported-from", "imported-by", "imported-at", "reviewed")


@dataclass(frozen=True, slots=True)
class Review:
    """What the operator said beforehand: that it is so, or which fingerprints (hex SHA-256) are meant."""

    yes: bool
    fingerprints: frozenset[str]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a root came from, who trusted it, when (milliseconds), and how it was looked at."""

    source: str
    by: str
    at: int
    reviewed: Reviewed

    @property
    def details(self) -> dict[str, str]:
        """For the audit record, which says by whom and when itself."""
        return {"source": printable(self.source), "reviewed": self.reviewed}

    @property
    def summary(self) -> str:
        """For the one who imports."""
        looked = {
            "fingerprint": "its SHA-256 is the one that was named",
            "yes": "taken as it is, with --yes",
            "asked": "looked at",
            "no": "its SHA-256 was not compared with anything",
        }
        return f"{printable(self.source)}, by {self.by} at {rfc3339(self.at)}: {looked[self.reviewed]}"

    @property
    def note(self) -> str:
        """Lines of comment for its file, which the service does not read."""
        values = (self.source, self.by, rfc3339(self.at), self.reviewed)
        told = zip(_NOTED, values, strict=True)
        # Nothing in it can be taken for the beginning of a certificate, or of another line.
        return "".join(f"# {name}: {printable(value).replace('-----', '?')}\n" for name, value in told)


def review_options(command: Command) -> Command:
    """Gives the command `review: Review`."""
    given = click.option(
        "--sha256",
        "fingerprints",
        multiple=True,
        metavar="FINGERPRINT",
        callback=_fingerprints,
        help="The root's SHA-256 as its maker publishes it; all others are refused.",
    )
    return click.option("--yes", is_flag=True, help="Trust what is shown, without asking.")(given(command))


def person() -> Ask | None:
    """Who can be asked: whoever sits at the terminal, if anybody does."""
    return (lambda question: click.confirm(question, err=True)) if sys.stdin.isatty() else None


def look_at(certificates: Sequence[Certificate], review: Review, *, source: str, ask: Ask | None) -> Reviewed:
    """How these were looked at; Failure where they are not the ones that were meant, or are declined."""
    found = {one.sha256 for one in certificates}
    if review.fingerprints:
        if not found <= review.fingerprints:
            other = min(found - review.fingerprints)
            raise Failure(f"nothing trusted: {source} holds {other}, which --sha256 does not name")
        return "fingerprint"
    if review.yes:
        return "yes"
    if ask is None:
        return "no"
    for one in certificates:
        click.echo("\n".join(lines(one, source)), err=True)
    if not ask("Does the maker publish the same SHA-256? Trust it?"):
        raise Failure(f"nothing trusted: {source} was declined")
    return "asked"


def lines(certificate: Certificate, source: str) -> Iterable[str]:
    """What a person compares."""
    yield certificate.title or "no subject"
    yield f"  sha256  {certificate.sha256}"
    yield f"  key     {key_name(certificate.key)}"
    yield f"  valid   {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
    yield f"  from    {printable(source)}"


def read_note(text: str) -> Mapping[str, str | None]:
    """What the comment at the beginning of a root's file says; all None for a file that was put there."""
    found: dict[str, str | None] = dict.fromkeys(_NOTED)
    for line in text.splitlines():
        name, colon, value = line.removeprefix("# ").partition(": ")
        if not line.startswith("# ") or not colon or name not in found:
            break
        found[name] = value
    return {name.replace("-", "_"): value for name, value in found.items()}


def _fingerprints(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> frozenset[str]:
    wanted = frozenset(text.replace(":", "").lower() for text in given)
    for digits in wanted:
        if _FINGERPRINT.fullmatch(digits) is None:
            raise Unusable(f"--sha256 {digits[:80]} is no SHA-256: write its 64 hex digits")
    return wanted
