"""Does this evidence hold? Files are verified here, without a server and without a TPM."""

from __future__ import annotations

import click

from attestd.cli import evidence_ek, evidence_eventlog, evidence_ima, evidence_quote


@click.group("evidence")
def command() -> None:
    """Verify evidence offline: exit status 0 if it holds, 1 if not, 2 if a file cannot be read."""


for verb in (evidence_eventlog.command, evidence_quote.command, evidence_ima.command, evidence_ek.command):
    command.add_command(verb)
