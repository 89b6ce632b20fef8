"""What does an operator do on the device? Enrol it, attest, look, and open what was sealed to it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from attestd.agent.attest import Wanted, attest
from attestd.agent.deliver import deliver
from attestd.agent.enroll import enroll
from attestd.agent.errors import Misconfigured, Refusal, Unreachable, plain
from attestd.agent.state import Membership, State
from attestd.agent.transport import Server
from attestd.agent.unseal import unseal
from attestd.cli import failures
from attestd.cli.output import json_option, print_object, progress
from attestd.clock import now_ms, rfc3339
from attestd.config import environment
from tpm.device.device import Device
from tpm.device.keys import attestation_public

DEFAULT_STATE = Path("/var/lib/attestd-agent")
DEFAULT_TPM = "device:/dev/tpmrm0"

# Of agents and sealed keys in the protocol, and so of the files that are named after them.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

Command = TypeVar("Command", bound=Callable[..., Any])


def _tpm_option(command: Command) -> Command:
    return click.option(
        "--tpm",
        default=lambda: environment().get("ATTESTD_TPM") or DEFAULT_TPM,
        show_default=f"ATTESTD_TPM, else {DEFAULT_TPM}",
        metavar="TCTI",
        help="The TPM, as tpm2-tools name it.",
    )(command)


def _state_option(command: Command) -> Command:
    return click.option(
        "--state",
        default=DEFAULT_STATE,
        show_default=True,
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="What the device remembers of its enrolment.",
    )(command)


def _server_options(command: Command) -> Command:
    ca = click.Path(exists=True, dir_okay=False, path_type=Path)
    with_ca = click.option(
        "--ca", type=ca, metavar="FILE", help="PEM of the CA that the server's certificate is from."
    )
    with_url = click.option(
        "--server", metavar="URL", help="The service, as its external_url says; kept at enrolment."
    )
    return with_url(with_ca(command))


def _enrolled_options(command: Command) -> Command:
    """--server and --ca for the verbs that ask no service: the one says which enrolment is meant, the other
    is taken because every agent verb takes it."""
    ca = click.option("--ca", expose_value=False, metavar="FILE", help="Not used: no service is asked.")
    server = click.option("--server", metavar="URL", help="The service that this must be the enrolment at.")
    return server(ca(command))


@click.group("agent")
def command() -> None:
    """The device's side: enrol, attest, unseal."""


@command.command("enroll")
@_server_options
@_tpm_option
@_state_option
@click.option(
    "--ak",
    type=click.Choice(["p256", "rsa"]),
    help="Kind of attestation key; else the one that is there, or p256.",
)
def enroll_command(server: str | None, ca: Path | None, tpm: str, state: Path, ak: str | None) -> None:
    """Make this machine a device of the service. Harmless to do again."""
    kept = State(state)
    with _reported():
        where = _server(server, ca, kept.membership())
        with progress(f"Enrolling at {where.url}"), Device(tpm) as device:
            membership = enroll(device, where, kept, ak=ak)
    click.echo(f"{membership.state} {membership.device_id}")
    if membership.state == "pending":
        click.echo(f"an operator admits it: attestd device approve {membership.device_id[:12]}", err=True)


@command.command("attest")
@_server_options
@_tpm_option
@_state_option
@click.option(
    "--agent", metavar="NAME", help="The agent that the credentials are for, as the policy names it."
)
@click.option("--format", "formats", multiple=True, type=click.Choice(["x509-svid", "wit-svid", "jwt-svid"]))
@click.option("--key", type=click.Choice(["tpm", "software"]), default="tpm", show_default=True)
@click.option("--audience", "audiences", multiple=True, metavar="A", help="Whom a jwt-svid is for.")
@click.option("--seal", "seals", multiple=True, metavar="NAME", help="A sealed key of the policy.")
@click.option(
    "--event-log",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The firmware's log, sent where the service asks for it.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def attest_command(
    out: Path, state: Path, tpm: str, server: str | None, ca: Path | None, **asked: Any
) -> None:
    """Prove how this machine booted and write what its policy grants into DIR."""
    kept, wanted = State(state), _wanted(asked)
    log = None if asked["event_log"] is None else asked["event_log"].read_bytes()
    with _reported(kept):
        membership, recipe = _enrolled(kept)
        where = _server(server, ca, membership)
        with progress("Attesting"), Device(tpm) as device:
            received = attest(device, where, membership, recipe=recipe, wanted=wanted, event_log=log)
            bundle = where.get("/.well-known/spiffe/bundle")
        paths = deliver(received, bundle, wanted=wanted, out=out)
        kept.keep_last(_outcome("accepted", received.answer))
        if membership.state != "active":
            kept.keep_membership(replace(membership, state="active"))
    for path in paths:
        click.echo(path)
    click.echo(f"renew after {plain(received.answer.get('renew_after'))}", err=True)


@command.command("status")
@_enrolled_options
@_state_option
@_tpm_option
@json_option
def status_command(server: str | None, state: Path, tpm: str, as_json: bool) -> None:
    """Say where this machine is enrolled and how its last attestation ended."""
    kept = State(state)
    with _reported():
        membership, recipe = _enrolled(kept)
        _check_server(server, membership)
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
@_enrolled_options
@_tpm_option
@_state_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def unseal_command(file: Path, server: str | None, tpm: str, state: Path) -> None:
    """Write the secret of FILE to standard output; of a sealed key, a key file that other programs load."""
    with _reported(), Device(tpm) as device:
        membership = State(state).membership()
        _check_server(server, membership)
        opened = unseal(device, file, ek="p256" if membership is None else membership.ek)
    sys.stdout.buffer.write(opened)
    sys.stdout.buffer.flush()


def _enrolled(kept: State) -> tuple[Membership, bytes]:
    membership, recipe = kept.membership(), kept.recipe()
    if membership is None or recipe is None:
        raise failures.Failure(
            f"{kept.directory} has no enrolment; run `attestd agent enroll --server URL` first"
        )
    return membership, recipe


def _check_server(named: str | None, membership: Membership | None) -> None:
    if named is not None and membership is not None and named != membership.server:
        raise failures.Failure(
            f"this machine is enrolled at {membership.server}, not at {named}; name that one's --state"
        )


def _server(url: str | None, ca: Path | None, membership: Membership | None) -> Server:
    named = url or (membership.server if membership else None)
    if named is None:
        raise failures.Unusable("which service? name it with --server URL, as its external_url says")
    return Server(named, ca)


def _wanted(asked: Mapping[str, Any]) -> Wanted:
    formats, audiences, seals = (
        tuple(dict.fromkeys(asked[each])) for each in ("formats", "audiences", "seals")
    )
    wanted = Wanted(asked["agent"], formats, asked["key"], audiences, seals)
    for name in (*seals, *([wanted.agent] if wanted.agent is not None else [])):
        if _NAME.fullmatch(name) is None:
            raise failures.Unusable(f"{name!r} is no name; it has letters a to z, digits and -, at most 63")
    if wanted.formats and wanted.agent is None:
        raise failures.Unusable("which agent are the credentials for? name it with --agent NAME")
    if wanted.audiences and "jwt-svid" not in wanted.formats:
        raise failures.Unusable(
            "an audience belongs to a jwt-svid; add --format jwt-svid or leave --audience out"
        )
    if "jwt-svid" in wanted.formats and not wanted.audiences:
        raise failures.Unusable("whom is the jwt-svid for? name it with --audience A")
    return wanted


@contextmanager
def _reported(kept: State | None = None) -> Iterator[None]:
    """A refusal is the problem as JSON on stderr and status 1; no answer is status 3, a wrong name 2."""
    try:
        yield
    except Refusal as refusal:
        if kept is not None:
            kept.keep_last(_outcome("refused", refusal.problem))
        click.echo(json.dumps(dict(refusal.problem), separators=(", ", ": ")), err=True)
        raise SystemExit(1) from None
    except Unreachable as error:
        raise failures.Unreachable(str(error)) from None
    except Misconfigured as error:
        raise failures.Unusable(str(error)) from None


def _outcome(verdict: str, told: Mapping[str, Any]) -> dict[str, Any]:
    members = ("code", "detail", "findings", "request_id", "policy")
    return {
        "time": rfc3339(now_ms()),
        "verdict": verdict,
        **{name: told[name] for name in members if name in told},
    }


def _readable(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(member)}" for name, member in value.items())
    if isinstance(value, list):
        return ", ".join(_readable(member) for member in value)
    return "none" if value is None else plain(value)
