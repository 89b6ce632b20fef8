"""Where is this machine enrolled, and how did its last attestation end?"""

from __future__ import annotations

from pathlib import Path

import click

from attestd.agent.errors import plain
from attestd.agent.state import State
from attestd.cli.agent_options import check_server, enrolled_options, reported, state_option, tpm_option
from attestd.cli.output import json_option, print_object
from tpm.device.device import Device
from tpm.device.keys import attestation_public


@click.command("status")
@enrolled_options
@state_option
@tpm_option
@json_option
def command(server: str | None, state: Path, tpm: str, as_json: bool) -> None:
    """Say where this machine is enrolled and how its last attestation ended."""
    kept = State(state)
    with reported():
        membership, recipe = kept.enrolment()
        check_server(server, membership)
        last = kept.last()
        with Device(tpm) as device:
            properties, banks = device.properties(), device.banks()
    told = {
        "server": membership.server,
        "device_id": membership.device_id,
        "state": membership.state,
        "ak_name": attestation_public(recipe).name.hex(),
        "tpm": {"manufacturer": properties.manufacturer, "firmware": f"{properties.firmware_version:016x}"},
        "banks": list(banks),
        "last_attestation": last,
    }
    if as_json:
        print_object(told)
        return
    for name, value in told.items():
        click.echo(f"{name.replace('_', ' '):<17} {_readable(value)}")


def _readable(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(_readable(member) for member in value)
    return "none" if value is None else plain(value)
