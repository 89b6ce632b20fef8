"""What is known of a device, and why was it refused: in words and for programs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attestd.clock import rfc3339
from attestd.policy.explain import Judge, explain
from attestd.policy.findings import from_wire
from attestd.store.attestations import Attestation
from attestd.store.credentials import Issued
from attestd.store.devices import Device

_STEPS = {
    "device_pending": "nobody has approved it yet: attestd device approve DEVICE",
    "device_banned": "an operator banned or retired it: attestd device unban DEVICE",
    "no_policy": "label it, or apply a policy whose [match] covers it and no other does as closely",
    "not_entitled": "it asked for what its policy does not grant: attestd policy show NAME",
}
"""What an operator can do about refusals that have no finding of a register or a key."""


def describe(device: Device) -> dict[str, Any]:
    """The device as JSON: times RFC 3339, what is not known null, keys left out."""
    return {
        "device_id": device.device_id,
        "name": device.name,
        "state": device.state,
        "labels": dict(device.labels),
        "assurance": device.assurance,
        "enrolled": device.ak_public is not None,
        "manufacturer": device.manufacturer,
        "model": device.model,
        "version": device.version,
        "hostname": device.hostname,
        "ak_name": device.ak_name,
        "posture": device.posture,
        "posture_at": _time(device.posture_at),
        "posture_until": _time(device.posture_until),
        "clock": _clock(device),
        "created_at": _time(device.created_at),
        "updated_at": _time(device.updated_at),
    }


def row(device: Device) -> str:
    """One line of the list."""
    labels = " ".join(f"{key}={value}" for key, value in device.labels.items())
    posture = device.posture or ("not attested" if device.ak_public is not None else "not enrolled")
    return f"{device.name:<20} {device.state:<8} {posture:<12} {device.device_id[:16]}  {labels}".rstrip()


def lines(device: Device, policy: str, live: Sequence[Issued]) -> list[str]:
    """The device for people; `policy` says which one decides about it."""
    told = {
        "device": f"{device.name} ({device.state})",
        "identifier": device.device_id,
        "labels": " ".join(f"{key}={value}" for key, value in device.labels.items()) or "none",
        "assurance": device.assurance,
        "TPM": " ".join(filter(None, (device.manufacturer, device.model, device.version))) or "not known",
        "hostname": device.hostname or "not told",
        "policy": policy,
        "posture": f"{device.posture} at {_time(device.posture_at)}" if device.posture else "never judged",
        "known since": _time(device.created_at),
    }
    shown = [f"{name:<12} {_plain(value)}" for name, value in told.items()]
    for each in live:
        shown.append(f"{'credential':<12} {each.format} {each.spiffe_id} until {_time(each.expires_at)}")
    return shown


def refusal(device: Device, refused: Attestation | None) -> dict[str, Any]:
    """The last refusal as JSON, with all its findings; its members are null if there was none."""
    policy = None if refused is None or refused.policy_name is None else _judge(refused)
    return {
        "device_id": device.device_id,
        "name": device.name,
        "attestation_id": None if refused is None else refused.attestation_id,
        "time": None if refused is None else _time(refused.finished_at),
        "code": None if refused is None else refused.code,
        "policy": None if policy is None else str(policy),
        "policy_digest": None if refused is None else refused.policy_digest,
        "findings": [] if refused is None else [dict(finding) for finding in refused.findings],
        "accepted_since": refused is not None and _accepted_since(device, refused),
    }


def why(device: Device, refused: Attestation | None, *, withdrawn: bool) -> list[str]:
    """The last refusal for people: one paragraph a finding, each with what to do next. `withdrawn`: the root
    that vouched for the TPM is trusted no more, so that nothing of the device is judged at all."""
    if withdrawn:
        said = "is refused unjudged: the root that vouched for its TPM is trusted no more"
        return [f"{device.name} {said}; import it again (attestd ek-roots import FILE), or allow the device"]
    if refused is None:
        step = _STEPS.get(f"device_{device.state}")
        return [f"{device.name} has not been refused" + (f", but {step}" if step else "")]
    judge = _judge(refused) if refused.policy_name is not None else None
    by = f" by {judge}" if judge is not None else ""
    told = [f"{device.name} was refused at {_time(refused.finished_at)}{by}: {refused.code}"]
    told += [f"  {_plain(_sentence(finding, judge))}" for finding in refused.findings]
    if refused.code in _STEPS:
        told.append(f"  {_STEPS[refused.code]}")
    if _accepted_since(device, refused):
        told.append(f"  It has been accepted since, at {_time(device.posture_at)}.")
    return told


def _judge(refused: Attestation) -> Judge:
    return Judge(refused.policy_name or "", refused.policy_version or 0)


def _sentence(finding: Any, judge: Judge | None) -> str:
    return explain(from_wire(finding), judge)


def _accepted_since(device: Device, refused: Attestation) -> bool:
    return device.posture == "accepted" and (device.posture_at or 0) > (refused.finished_at or 0)


def _clock(device: Device) -> dict[str, Any] | None:
    """The baseline that the next quote must continue."""
    if device.reset_count is None:
        return None
    return {
        "reset_count": device.reset_count,
        "restart_count": device.restart_count,
        "clock": device.clock,
        "firmware_version": None if device.firmware_version is None else f"{device.firmware_version:016x}",
        "boot_id": device.boot_id,
        "safe": device.safe,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _plain(text: str | None) -> str:
    """What a device or a certificate says of itself reaches no terminal as it is."""
    return "".join(letter if letter.isprintable() else "?" for letter in text or "")
