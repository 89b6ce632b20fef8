"""How does a machine open what was sealed to it?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from attestd.agent.machine import opened
from attestd.agent.state import State
from attestd.agent.unseal import unseal
from attestd.cli.agent_options import check_server, enrolled_options, reported, state_option, tpm_option


@click.command("unseal")
@enrolled_options
@tpm_option
@state_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(file: Path, server: str | None, tpm: str, state: Path) -> None:
    """Write the secret of FILE to standard output; of a sealed key, a key file that other programs load."""
    with reported(), opened(tpm, state) as device:
        membership = State(state).membership()
        check_server(server, membership)
        secret = unseal(device, file, ek="p256" if membership is None else membership.ek)
    sys.stdout.buffer.write(secret)
    sys.stdout.buffer.flush()
