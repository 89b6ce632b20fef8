"""Which command does the user want? Each noun is a module that is imported only when it is named.

`attestd --version` and `attestd --help` must answer at once, so nothing heavy is imported here: no web
framework, no cryptography, no database.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from attestd.cli.failures import failure_of
from attestd.tables import nearest

NOUNS = {
    "init": "Make a directory that serves: configuration, keys, database.",
    "serve": "Run the service in the foreground.",
    "check": "Look at the configuration and everything that it names.",
    "doctor": "Look at a running service as its devices see it.",
    "device": "List, approve, ban, label and explain devices.",
    "policy": "Check, apply and roll back appraisal policies.",
    "keys": "List, add, activate and retire signing keys.",
    "ek-roots": "List, import and remove the TPM makers that are trusted.",
    "agent": "The device's side: enrol, attest, get tokens, unseal.",
    "audit": "Show, verify and trace the audit log.",
    "evidence": "Verify evidence in files, without a server.",
    "swtpm": "Run a software TPM until stdin closes.",
}
"""Every noun with its line of help; its module, "-" written "_", has a `command`."""


class Nouns(click.Group):
    """The root: lists its commands from the table, imports the one asked for, translates its errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module = importlib.import_module(f"attestd.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is not a command")
        return _with_version(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in NOUNS and not args[0].startswith("-"):
            near = nearest(args[0], NOUNS)
            meant = f"; did you mean {near}?" if near else f"; known are {', '.join(NOUNS)}"
            raise click.UsageError(f"{args[0]} is not a command{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _told_in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _told_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Errors leave as one line and an exit status; what click needs to end by itself passes."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        failure = failure_of(error)
        if failure is None or failure is error:
            raise
        raise failure from error


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"attestd {importlib.metadata.version('attestd-tpm')}")
        ctx.exit()


_version_option = click.Option(
    ["--version"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)


def _with_version(command: click.Command) -> click.Command:
    """The command, and every verb under it, with --version."""
    if _version_option not in command.params:
        command.params.append(_version_option)
    if isinstance(command, click.Group):
        for verb in command.commands.values():
            _with_version(verb)
    return command


@click.group(cls=Nouns, params=[_version_option], context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Short-lived agent credentials for machines that prove with their TPM how they booted."""
    # The driver's log says in many lines what its exception says in one; a service's log still has it.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
