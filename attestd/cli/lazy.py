"""How does a group have many commands and load one: the one that was named?

`attestd --version` and `attestd --help` must answer at once, so a group knows its commands from a table and
imports a command's module only when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from attestd.tables import nearest


class Lazy(click.Group):
    """Lists its commands from the table, imports the one asked for, and names what was probably meant."""

    def __init__(self, name: str, table: Mapping[str, str], *, module: str, **extra: Any) -> None:
        """`table`: each command with its line of help. `module`: where its `command` is, with {} for the
        name, "-" written "_"."""
        super().__init__(name, params=[_version_option], **extra)
        self._table = table
        self._module = module

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module = importlib.import_module(self._module.format(cmd_name.replace("-", "_")))
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is not a command")
        return _with_version(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._table and not args[0].startswith("-"):
            near = nearest(args[0], self._table)
            meant = f"; did you mean {near}?" if near else f"; known are {', '.join(self._table)}"
            raise click.UsageError(f"{args[0]} is not a command{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        # Here, because it takes a megabyte, and the agent runs for years without it.
        from importlib.metadata import version

        click.echo(f"attestd {version('attestd-tpm')}")
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
