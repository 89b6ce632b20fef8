"""What do all commands share: the configuration's option, output for programs, progress for people?"""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from attestd.cli.failures import Unusable
from attestd.config import Config, environment, load_config

if TYPE_CHECKING:
    from attestd.issue.keys import KeyRing
    from attestd.store.audit import AuditEvent
    from attestd.store.store import Store

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


@contextmanager
def store_of(config: Config) -> Iterator[Store]:
    """The configured store with this version's tables, closed at the end. A missing file is not made here."""
    from attestd.store.store import Store

    require_database(config)
    store = Store.open(config.database)
    try:
        store.migrate()
        yield store
    finally:
        store.close()


def require_database(config: Config) -> None:
    """SQLite would make a missing file; a wrong path must be told instead."""
    scheme, _, path = config.database.partition(":")
    if scheme == "sqlite" and not Path(path).is_file():
        why = "there is no database; make one with `attestd init`, or correct the path"
        raise Unusable(f"{path}: {why} in {config.path}")


def keyring_of(config: Config, store: Store) -> KeyRing:
    """The signing keys of this directory with their states in the store."""
    from attestd.issue.keys import KeyRing
    from attestd.store import signing_keys

    return KeyRing(
        config.keys,
        trust_domain=config.trust_domain,
        read_states=lambda: store.read(signing_keys.list_all),
    )


def admin_event(verb: str, details: Mapping[str, Any], *, device_id: str | None = None) -> AuditEvent:
    """The record of what an operator did, for the transaction that does it; `verb` like "device ban".

    Who it was is the system's user, whom nothing here has authenticated beyond that.
    """
    from attestd.store.audit import AuditEvent

    told = {"verb": verb, "by": operator(), **details}
    return AuditEvent(event="admin", decision="accepted", device_id=device_id, details=told)


def operator() -> str:
    """The name of the user who runs this command, or the number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _load(ctx: click.Context, _: click.Parameter, named: str | None) -> Config | None:
    if ctx.resilient_parsing:
        return None
    return load_config(None if named is None else Path(named), environment())
