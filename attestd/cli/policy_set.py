"""Which policies are in force, and would these leave a device undecided?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attestd.cli.failures import Failure
from attestd.policy.active import ActivePolicy
from attestd.policy.choose import NoPolicy, Subject, choose_policy, find_ties
from attestd.policy.document import Policy, load_policy
from attestd.store import devices, policies
from attestd.store.devices import Device
from attestd.store.engine import Transaction
from attestd.store.policies import PolicyVersion
from tpm.errors import PolicyError

_TOLD = 3


def load_version(version: PolicyVersion) -> ActivePolicy:
    """A kept version's document; Failure if this release no longer takes it."""
    try:
        return ActivePolicy(load_policy(version.source, version.files), version.version)
    except PolicyError as error:
        raise Failure(f"{version.name}@{version.version} cannot be used: {error.detail}") from None


def in_force(tx: Transaction) -> list[ActivePolicy]:
    """The policies in force, by name."""
    return [load_version(version) for version in policies.active(tx)]


def subject_of(device: Device) -> Subject:
    """What may choose the device's policy."""
    return Subject(device.device_id, device.labels, device.manufacturer)


def decider(active: Sequence[ActivePolicy], device: Device) -> tuple[ActivePolicy | None, str]:
    """The policy that decides about the device, or None and why."""
    try:
        document = choose_policy([policy.document for policy in active], subject_of(device))
    except NoPolicy as error:
        return None, error.detail
    return next(policy for policy in active if policy.document is document), ""


def refuse_ties(tx: Transaction, changed: Sequence[Policy]) -> None:
    """Failure if, with these in force beside the others, several would decide alike about a known device."""
    replaced = {document.name for document in changed}
    kept = [version for version in policies.active(tx) if version.name not in replaced]
    others = [load_version(version).document for version in kept]
    known = {device.device_id: device for device in devices.list_all(tx) if device.state != "retired"}
    ties = find_ties([*others, *changed], [subject_of(device) for device in known.values()])
    if ties:
        raise Failure(_tie(ties, known.values()))


def _tie(ties: dict[str, tuple[str, ...]], known: Iterable[Device]) -> str:
    named = [
        f"{device.name} ({' and '.join(ties[device.device_id])})"
        for device in known
        if device.device_id in ties
    ]
    more = f" and {len(named) - _TOLD} more" if len(named) > _TOLD else ""
    return (
        f"nothing applied: several policies would decide alike about {', '.join(named[:_TOLD])}{more}; "
        "add a condition to the [match] of one of them"
    )
