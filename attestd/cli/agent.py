"""What does an operator do on the device? Enrol it, attest, look, and open what was sealed to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from attestd.agent.attest import Wanted, attest
from attestd.agent.deliver import SUFFIXES, deliver
from attestd.agent.enroll import enroll
from attestd.agent.errors import plain
from attestd.agent.logs import Logs
from attestd.agent.state import State
from attestd.agent.unseal import unseal
from attestd.cli import failures
from attestd.cli.agent_options import (
    check_name,
    check_server,
    enrolled_options,
    log_files,
    log_options,
    outcome,
    reported,
    server_of,
    server_options,
    state_option,
    tpm_option,
)
from attestd.cli.agent_token import token_command
from attestd.cli.output import json_option, print_object, progress
from tpm.device.device import Device
from tpm.device.keys import attestation_public


@click.group("agent")
def command() -> None:
    """The device's side: enrol, attest, get tokens, unseal."""


command.add_command(token_command)


@command.command("enroll")
@server_options
@tpm_option
@state_option
@click.option(
    "--ak",
    type=click.Choice(["p256", "rsa"]),
    help="Kind of attestation key; else the one that is there, or p256.",
)
def enroll_command(server: str | None, ca: Path | None, tpm: str, state: Path, ak: str | None) -> None:
    """Make this machine a device of the service. Harmless to do again."""
    kept = State(state)
    with reported():
        where = server_of(server, ca, kept.membership())
        with progress(f"Enrolling at {where.url}"), Device(tpm) as device:
            membership = enroll(device, where, kept, ak=ak)
    click.echo(f"{membership.state} {membership.device_id}")
    if membership.state == "pending":
        click.echo(f"an operator admits it: attestd device approve {membership.device_id[:12]}", err=True)


@command.command("attest")
@server_options
@tpm_option
@state_option
@click.option(
    "--agent", metavar="NAME", help="The agent that the credentials are for, as the policy names it."
)
@click.option("--format", "formats", multiple=True, type=click.Choice(list(SUFFIXES)))
@click.option("--key", type=click.Choice(["tpm", "software"]), default="tpm", show_default=True)
@click.option("--audience", "audiences", multiple=True, metavar="A", help="Whom a jwt-svid is for.")
@click.option("--seal", "seals", multiple=True, metavar="NAME", help="A sealed key of the policy.")
@log_options
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def attest_command(
    out: Path, state: Path, tpm: str, server: str | None, ca: Path | None, **asked: Any
) -> None:
    """Prove how this machine booted and write what its policy grants into DIR."""
    kept, wanted = State(state), _wanted(asked)
    logs = Logs(log_files(asked), kept)
    with reported(kept, agent=wanted.agent):
        membership, recipe = kept.enrolment()
        where = server_of(server, ca, membership)
        with progress("Attesting"), Device(tpm) as device:
            received = attest(device, where, membership, recipe=recipe, wanted=[wanted], logs=logs)
            bundle = where.get("/.well-known/spiffe/bundle")
        paths = deliver(received, bundle, out=out)
        kept.keep_last(outcome("accepted", received.answer, wanted.agent))
        if membership.state != "active":
            kept.keep_membership(replace(membership, state="active"))
    for path in paths:
        click.echo(path)
    click.echo(f"renew after {plain(received.answer.get('renew_after'))}", err=True)


@command.command("status")
@enrolled_options
@state_option
@tpm_option
@json_option
def status_command(server: str | None, state: Path, tpm: str, as_json: bool) -> None:
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


@command.command("unseal")
@enrolled_options
@tpm_option
@state_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def unseal_command(file: Path, server: str | None, tpm: str, state: Path) -> None:
    """Write the secret of FILE to standard output; of a sealed key, a key file that other programs load."""
    with reported(), Device(tpm) as device:
        membership = State(state).membership()
        check_server(server, membership)
        opened = unseal(device, file, ek="p256" if membership is None else membership.ek)
    sys.stdout.buffer.write(opened)
    sys.stdout.buffer.flush()


def _wanted(asked: Mapping[str, Any]) -> Wanted:
    formats, audiences, seals = (
        tuple(dict.fromkeys(asked[each])) for each in ("formats", "audiences", "seals")
    )
    wanted = Wanted(asked["agent"], formats, asked["key"], audiences, seals)
    for name in (*seals, *([wanted.agent] if wanted.agent is not None else [])):
        check_name(name)
    if wanted.formats and wanted.agent is None:
        raise failures.Unusable("which agent are the credentials for? name it with --agent NAME")
    if wanted.audiences and "jwt-svid" not in wanted.formats:
        raise failures.Unusable(
            "an audience belongs to a jwt-svid; add --format jwt-svid or leave --audience out"
        )
    if "jwt-svid" in wanted.formats and not wanted.audiences:
        raise failures.Unusable("whom is the jwt-svid for? name it with --audience A")
    return wanted


def _readable(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(_readable(member) for member in value)
    return "none" if value is None else plain(value)
