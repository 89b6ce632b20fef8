"""What is known of a device, in words and for programs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attestd.clock import rfc3339
from attestd.store.credentials import Issued
from attestd.store.devices import Device


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
    shown = [f"{name:<12} {plain(value)}" for name, value in told.items()]
    for each in live:
        shown.append(f"{'credential':<12} {each.format} {each.spiffe_id} until {_time(each.expires_at)}")
    return shown


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


def plain(text: str | None) -> str:
    """What a device or a certificate says of itself reaches no terminal as it is."""
    return "".join(letter if letter.isprintable() else "?" for letter in text or "")
