"""What do `attestd install-service` and `attestd agent install-service` share? Options, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from attestd.cli.service_files import PACKAGED, Wanted, carry_out, check, run_command, steps, tell

Command = TypeVar("Command", bound=Callable[..., Any])

ROOT = Path("/")


def install_options(command: Command) -> Command:
    """--user, --attestd, --root, --now, --dry-run."""
    folder = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would be written and run; change nothing."),
        click.option("--now", is_flag=True, help="Enable it too, and start it."),
        click.option(
            "--root", type=folder, default=ROOT, metavar="DIR", help="Another system's root, like an image's."
        ),
        click.option(
            "--attestd",
            "executable",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="The command that systemd runs; else this one.",
        ),
        click.option("--user", metavar="NAME", help="Whom it runs as; made where missing."),
    ):
        command = option(command)
    return command


def this_attestd() -> Path:
    """The command of the running interpreter, by the short name that a package gave it."""
    own = Path(sys.executable).with_name("attestd")
    packaged = Path(PACKAGED)
    return packaged if packaged.exists() and own.exists() and packaged.samefile(own) else own


def install(wanted: Wanted, *, now: bool, dry_run: bool, first: Sequence[str]) -> None:
    """Do it, say what was done, and what comes next: the commands in `first`, then enabling the unit."""
    check(wanted)
    running = wanted.root == ROOT and Path("/run/systemd/system").is_dir()
    done = 0
    for step in steps(wanted, running=running, now=now):
        if not dry_run:
            carry_out(step, run_command)
        tell(step, dry_run=dry_run)
        done += 1
    if not done:
        click.echo("everything is in place")
    if not now:
        for line in (*first, f"systemctl enable --now {wanted.part.unit}"):
            click.echo(f"next: {line}", err=True)
