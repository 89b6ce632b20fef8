"""How are checks told: one line each, a fault with its next step, and an exit status?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import click

from attestd.cli.failures import Failure, failure_of
from attestd.cli.output import print_object

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at and how it is; `detail` of a fault ends with the next step."""

    level: Level
    check: str
    detail: str


Check = Callable[[], Iterable[Line]]


def lines_of(
    checks: Iterable[tuple[str, Check]], *, passing: tuple[type[Exception], ...] = ()
) -> Iterator[Line]:
    """Run the checks in turn; one that breaks off is a fault and does not keep the others from running.

    Exceptions in `passing` end the command instead.
    """
    for name, check in checks:
        try:
            yield from check()
        except passing:
            raise
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            yield Line("fault", name, failure.message)


def tell(lines: Iterable[Line], *, as_json: bool) -> None:
    """Print each line as it comes. Failure, which ends the command with status 1, if one is a fault."""
    faults = 0
    for line in lines:
        faults += line.level == "fault"
        if as_json:
            print_object(asdict(line))
        else:
            click.echo(f"{line.level:<8} {line.check:<14} {line.detail}")
    if faults:
        raise Failure("1 fault" if faults == 1 else f"{faults} faults")
