"""What do all commands share: the configuration's option, output for programs, progress for people?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from attestd.config import Config, environment, load_config

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """Gives the command `config: Config`, read from --config, ATTESTD_CONFIG, or where it lies by default."""
    return click.option(
        "--config",
        "config",
        metavar="FILE",
        callback=_load,
        help="The configuration; else ATTESTD_CONFIG, ./attestd.toml, /etc/attestd/attestd.toml.",
    )(command)


def json_option(command: Command) -> Command:
    """Gives the command `as_json: bool`: one object a line for programs instead of text for people."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")(command)


def print_object(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, ASCII only, so that no terminal or locale can break it."""
    click.echo(json.dumps(value, separators=(", ", ": "), allow_nan=False))


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says on stderr what takes long, while it does, and that it ended; silent where stderr is no terminal."""
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


def _load(ctx: click.Context, _: click.Parameter, named: str | None) -> Config | None:
    if ctx.resilient_parsing:
        return None
    return load_config(None if named is None else Path(named), environment())
