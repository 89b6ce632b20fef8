"""How does an operator make this machine a device of the service?"""

from __future__ import annotations

from pathlib import Path

import click

from attestd.agent.enroll import enroll
from attestd.agent.machine import opened
from attestd.agent.state import State
from attestd.cli.agent_options import reported, server_of, server_options, state_option, tpm_option
from attestd.cli.output import progress


@click.command("enroll")
@server_options
@tpm_option
@state_option
@click.option(
    "--ak",
    type=click.Choice(["p256", "rsa"]),
    help="Kind of attestation key; else the one that is there, or p256.",
)
def command(server: str | None, ca: Path | None, tpm: str, state: Path, ak: str | None) -> None:
    """Make this machine a device of the service. Harmless to do again."""
    kept = State(state)
    with reported():
        where = server_of(server, ca, kept)
        with progress(f"Enrolling at {where.url}"), opened(tpm, state) as device:
            membership = enroll(device, where, kept, ak=ak)
    click.echo(f"{membership.state} {membership.device_id}")
    if membership.state == "pending":
        click.echo(f"an operator admits it: attestd device approve {membership.device_id[:12]}", err=True)
