"""What do the service's commands share: configuration, store, keys, and how a change is recorded?"""

from __future__ import annotations

import os
import pwd
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
