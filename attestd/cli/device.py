"""Which machines are known, what may each do, and why was one refused?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from attestd.cli.administration import Administration, administration
from attestd.cli.device_certificate import certificate, keep_certificate
from attestd.cli.device_import import Imported, fault, label_fault, name_fault, read_inventory
from attestd.cli.device_text import describe, lines, row
from attestd.cli.device_why import LastRefusal, last_refusal, refusal, why
from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import config_option, store_of
from attestd.cli.output import json_option, print_object
from attestd.cli.policy_set import decider, in_force
from attestd.clock import now_ms
from attestd.config import Config
from attestd.policy.active import ActivePolicy
from attestd.store import credentials, devices
from attestd.store.credentials import Issued
from attestd.store.devices import Device, State
from attestd.store.engine import Transaction
from attestd.trust import read_roots

STATES: tuple[State, ...] = ("pending", "active", "banned", "retired")


@dataclass(frozen=True, slots=True)
class Move:
    """A change of state: from `begins` to `to`; `otherwise` is what to do in another state."""

    verb: str
    to: State
    begins: frozenset[State]
    ends_credentials: bool
    otherwise: str


APPROVE = Move("approve", "active", frozenset({"pending"}), False, "lift it: attestd device unban")
BAN = Move("ban", "banned", frozenset({"pending", "active", "retired"}), True, "")
UNBAN = Move("unban", "active", frozenset({"banned", "retired"}), False, "see attestd device approve")
RETIRE = Move("retire", "retired", frozenset({"pending", "active"}), True, "the ban stands")


@click.group("device")
def command() -> None:
    """List, approve, ban, label and explain devices; DEVICE is an identifier or a name."""


command.add_command(certificate)


@command.command("list")
@config_option
@json_option
@click.option("--state", type=click.Choice(STATES), help="Only devices in this state.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only devices with this label.")
def list_(config: Config, as_json: bool, state: State | None, labels: tuple[str, ...]) -> None:
    """Print the devices, oldest first."""
    wanted = dict(_label(text) for text in labels)
    with store_of(config) as store:
        found = store.read(lambda tx: devices.list_all(tx, state=state, labels=wanted))
    for device in found:
        if as_json:
            print_object(describe(device))
        else:
            click.echo(row(device))


@command.command("show")
@config_option
@json_option
@click.argument("which", metavar="DEVICE")
def show(config: Config, which: str, as_json: bool) -> None:
    """Print what is known of a device, which policy decides about it, and its live credentials."""

    def look(tx: Transaction) -> tuple[Device, list[ActivePolicy], list[Issued]]:
        device = _find(tx, which)
        live = credentials.list_for_device(tx, device.device_id, live_at=now_ms())
        return device, in_force(tx), live

    with store_of(config) as store:
        device, active, live = store.read(look)
    policy, reason = decider(active, device)
    if as_json:
        decides = None if policy is None else policy.label
        print_object(describe(device) | {"policy": decides, "live_credentials": len(live)})
    else:
        click.echo("\n".join(lines(device, policy.label if policy is not None else f"none: {reason}", live)))


@command.command("approve")
@config_option
@click.argument("which", metavar="DEVICE")
def approve(config: Config, which: str) -> None:
    """Let a pending device attest."""
    _move(config, which, APPROVE)


@command.command("ban")
@config_option
@click.argument("which", metavar="DEVICE")
def ban(config: Config, which: str) -> None:
    """Refuse a device from now on, under whatever keys it comes back, and end its credentials."""
    _move(config, which, BAN)


@command.command("unban")
@config_option
@click.argument("which", metavar="DEVICE")
def unban(config: Config, which: str) -> None:
    """Let a banned or retired device attest again; its ended credentials stay ended."""
    _move(config, which, UNBAN)


@command.command("retire")
@config_option
@click.argument("which", metavar="DEVICE")
def retire(config: Config, which: str) -> None:
    """Take a device out of service: it is refused from now on, and its credentials end."""
    _move(config, which, RETIRE)


@command.command("rebase")
@config_option
@click.argument("which", metavar="DEVICE")
def rebase(config: Config, which: str) -> None:
    """Accept that the TPM was cleared: forget the clock that its next quote would have to continue, and the
    part of IMA's list that was judged.
    """

    def forget(office: Administration, tx: Transaction, device: Device) -> str:
        devices.rebase(tx, device.device_id, office.now)
        before = {"reset_count": device.reset_count, "restart_count": device.restart_count}
        office.record(tx, "device rebase", before, device_id=device.device_id)
        return f"{device.name}: its next accepted quote begins a new count"

    _change(config, which, forget)


@command.command("label")
@config_option
@click.argument("which", metavar="DEVICE")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE…")
def label(config: Config, which: str, pairs: tuple[str, ...]) -> None:
    """Set labels and leave the others; an empty value removes one. Says which policy then decides."""
    changes = dict(_label(text) for text in pairs)
    for key, value in changes.items():
        reason = label_fault(key, value or "-")
        if reason is not None:
            raise Failure(f"{reason}; nothing changed")

    def set_labels(office: Administration, tx: Transaction, device: Device) -> str:
        devices.set_labels(tx, device.device_id, changes, office.now)
        office.record(tx, "device label", {"labels": changes}, device_id=device.device_id)
        labelled = _find(tx, device.device_id)
        policy, missing = decider(in_force(tx), labelled)
        shown = " ".join(f"{key}={value}" for key, value in labelled.labels.items()) or "no labels"
        return f"{device.name}: {shown}; " + (f"{policy.label} decides" if policy is not None else missing)

    _change(config, which, set_labels)


@command.command("rename")
@config_option
@click.argument("which", metavar="DEVICE")
@click.argument("name")
def rename(config: Config, which: str, name: str) -> None:
    """Give a device another name, which no other device has."""
    reason = name_fault(name)
    if reason is not None:
        raise Failure(reason)

    def set_name(office: Administration, tx: Transaction, device: Device) -> str:
        if not devices.rename(tx, device.device_id, name, office.now):
            raise Failure(f"{name} is another device's name; choose another, or rename that one first")
        office.record(tx, "device rename", {"from": device.name, "to": name}, device_id=device.device_id)
        return f"{device.name} is now {name}"

    _change(config, which, set_name)


@command.command("import")
@config_option
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def import_(config: Config, file: Path) -> None:
    """Make known the machines of an inventory, all or none: they are active as soon as they enrol.

    One JSON object a line: {"device_id" or "ek_certificate", "name", "labels"}. A certificate counts for a
    TPM that sends none.
    """
    try:
        machines = read_inventory(file.read_bytes())
    except OSError as error:
        raise Unusable(f"{file}: {error.strerror}; name a file that can be read") from None
    with administration(config) as office:
        office.change(lambda tx: _insert(office, tx, machines))
    click.echo(f"{len(machines)} imported; each is active as soon as it enrols")


@command.command("why")
@config_option
@json_option
@click.argument("which", metavar="DEVICE")
def why_(config: Config, which: str, as_json: bool) -> None:
    """Explain the last refusal: each finding with what was expected, what was found, and what to do."""

    def look(tx: Transaction) -> tuple[Device, LastRefusal]:
        device = _find(tx, which)
        return device, last_refusal(tx, device)

    with store_of(config) as store:
        device, last = store.read(look)
    if as_json:
        print_object(refusal(device, last))
    else:
        click.echo("\n".join(why(device, last, withdrawn=_root_withdrawn(config, device))))


def _root_withdrawn(config: Config, device: Device) -> bool:
    """As attestations are admitted: an operator's list outlasts the root."""
    if device.root_sha256 is None or device.device_id in config.admission.ek_allow:
        return False
    roots = read_roots(config.admission.ek_roots)
    return all(root.certificate.sha256 != device.root_sha256 for root in roots)


def _move(config: Config, which: str, move: Move) -> None:
    def change(office: Administration, tx: Transaction, device: Device) -> str:
        if device.state == move.to:
            return f"{device.name} is {move.to} already"
        if device.state not in move.begins:
            raise Failure(
                f"{device.name} is {device.state}, which {move.verb} does not change; {move.otherwise}"
            )
        devices.set_state(tx, device.device_id, move.to, office.now)
        ended = _end_credentials(tx, device, move, office.now)
        details = {"was": device.state, "credentials_ended": ended}
        office.record(tx, f"device {move.verb}", details, device_id=device.device_id)
        return f"{device.name} is {move.to}" + (f"; {ended} credentials ended" if ended else "")

    _change(config, which, change)


def _end_credentials(tx: Transaction, device: Device, move: Move, now: int) -> int:
    if not move.ends_credentials:
        return 0
    return credentials.end_for_device(tx, device.device_id, reason=move.to, now=now)


def _change(config: Config, which: str, work: Callable[[Administration, Transaction, Device], str]) -> None:
    """One change to one device; the sentence is printed when it is durable."""
    with administration(config) as office:
        click.echo(office.change(lambda tx: work(office, tx, _find(tx, which))))


def _find(tx: Transaction, which: str) -> Device:
    device = devices.resolve(tx, which)
    if device is None:
        raise Failure(f"there is no device {which}; see attestd device list")
    return device


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Unusable(f"{text} is no label; write KEY=VALUE")
    return key, value


def _insert(office: Administration, tx: Transaction, machines: list[Imported]) -> None:
    for machine in machines:
        if devices.find(tx, machine.device_id) is not None:
            raise fault(machine.line, f"{machine.device_id} is known already; remove the line")
        if machine.name and devices.resolve(tx, machine.name) is not None:
            raise fault(machine.line, f"{machine.name} is another device's name; choose another")
    # Those with names of their own first, so that no name is taken that the store made up.
    for machine in sorted(machines, key=lambda machine: not machine.name):
        device = Device(
            device_id=machine.device_id,
            state="active",
            assurance="allow_listed",
            created_at=office.now,
            updated_at=office.now,
            name=machine.name,
            labels=machine.labels,
        )
        kept = devices.insert(tx, device)
        if machine.certificate is not None:
            keep_certificate(office, tx, kept.device_id, machine.certificate)
        details = {"name": kept.name, "labels": dict(kept.labels)}
        office.record(tx, "device import", details, device_id=kept.device_id)
