"""Why was a device refused, and who else would be?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from attestd.cli.device_text import plain
from attestd.clock import rfc3339
from attestd.policy.explain import Judge, explain
from attestd.policy.findings import from_wire
from attestd.store import attestations
from attestd.store.attestations import Attestation
from attestd.store.devices import Device
from attestd.store.elsewhere import Elsewhere, find_elsewhere
from attestd.store.engine import Transaction

_STEPS = {
    "device_pending": "nobody has approved it yet: attestd device approve DEVICE",
    "device_banned": "an operator banned or retired it: attestd device unban DEVICE",
    "no_policy": "label it, or apply a policy whose [match] covers it and no other does as closely",
    "not_entitled": "it asked for what its policy does not grant: attestd policy show NAME",
}
"""What an operator can do about refusals that have no finding of a register or a key."""


@dataclass(frozen=True, slots=True)
class LastRefusal:
    """The last refusal that is kept, None if there was none; and of each of its findings, in their order,
    which other devices have its value."""

    attestation: Attestation | None
    elsewhere: tuple[Elsewhere | None, ...]


def last_refusal(tx: Transaction, device: Device) -> LastRefusal:
    refused = attestations.last_refusal(tx, device.device_id)
    found = () if refused is None else refused.findings
    others = (
        find_elsewhere(tx, device.device_id, subject=str(one.get("subject")), found=one.get("found"))
        for one in found
    )
    return LastRefusal(refused, tuple(others))


def refusal(device: Device, last: LastRefusal) -> dict[str, Any]:
    """The last refusal as JSON, with all its findings; its members are null if there was none."""
    refused = last.attestation
    policy = None if refused is None or refused.policy_name is None else _judge(refused)
    return {
        "device_id": device.device_id,
        "name": device.name,
        "attestation_id": None if refused is None else refused.attestation_id,
        "time": None if refused is None else _time(refused.finished_at),
        "code": None if refused is None else refused.code,
        "policy": None if policy is None else str(policy),
        "policy_digest": None if refused is None else refused.policy_digest,
        "findings": _findings(last),
        "accepted_since": refused is not None and _accepted_since(device, refused),
    }


def _findings(last: LastRefusal) -> list[dict[str, Any]]:
    if last.attestation is None:
        return []
    found = [dict(finding) for finding in last.attestation.findings]
    for finding, others in zip(found, last.elsewhere, strict=True):
        if others is not None and others.since is not None:
            finding["elsewhere"] = asdict(others) | {"since": _time(others.since)}
    return found


def why(device: Device, last: LastRefusal, *, withdrawn: bool) -> list[str]:
    """The last refusal for people: one paragraph a finding, each with what to do next. `withdrawn`: the root
    that vouched for the TPM is trusted no more, so that nothing of the device is judged at all."""
    if withdrawn:
        said = "is refused unjudged: the root that vouched for its TPM is trusted no more"
        return [f"{device.name} {said}; import it again (attestd ek-roots import FILE), or allow the device"]
    refused = last.attestation
    if refused is None:
        step = _STEPS.get(f"device_{device.state}")
        return [f"{device.name} has not been refused" + (f", but {step}" if step else "")]
    judge = _judge(refused) if refused.policy_name is not None else None
    by = f" by {judge}" if judge is not None else ""
    told = [f"{device.name} was refused at {_time(refused.finished_at)}{by}: {refused.code}"]
    for finding, others in zip(refused.findings, last.elsewhere, strict=True):
        told.append(f"  {plain(explain(from_wire(finding), judge))}{_others(others)}")
    if refused.code in _STEPS:
        told.append(f"  {_STEPS[refused.code]}")
    if _accepted_since(device, refused):
        told.append(f"  It has been accepted since, at {_time(device.posture_at)}.")
    return told


def _judge(refused: Attestation) -> Judge:
    return Judge(refused.policy_name or "", refused.policy_version or 0)


def _others(found: Elsewhere | None) -> str:
    """Who else has that value; nothing for a value that is not compared."""
    if found is None:
        return ""
    if found.since is None:
        return " No other device has this value."
    told = [
        f"{number} {what}"
        for number, what in ((found.refused, "refused"), (found.accepted, "accepted"))
        if number
    ]
    devices = "device has" if found.refused + found.accepted == 1 else "devices have"
    return f" {' and '.join(told)} other {devices} this value too, since {_time(found.since)}."


def _accepted_since(device: Device, refused: Attestation) -> bool:
    return device.posture == "accepted" and (device.posture_at or 0) > (refused.finished_at or 0)


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
