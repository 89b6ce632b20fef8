"""Does this evidence hold? Files are verified here, without a server and without a TPM."""

from __future__ import annotations

import click

from attestd.cli import evidence_eventlog


@click.group("evidence")
def command() -> None:
    """Verify evidence offline: exit status 0 if it holds, 1 if not, 2 if a file cannot be read."""


for verb in (evidence_eventlog.command,):
    command.add_command(verb)
