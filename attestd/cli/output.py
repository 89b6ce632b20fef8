"""What does a command show: objects for programs, progress for people?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Gives the command `as_json: bool`: one object a line for programs instead of text for people."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")(command)


def print_object(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, ASCII only, so that no terminal or locale can break it."""
    click.echo(json.dumps(value, separators=(", ", ": "), allow_nan=False))


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says on stderr what takes long, while it does, and how it ended; silent if stderr is no terminal."""
    shown = sys.stderr.isatty()
    if shown:
        click.echo(f"{what} … ", err=True, nl=False)
    done = "failed"
    try:
        yield
        done = "done"
    finally:
        if shown:
            click.echo(done, err=True)
