"""Is the device's latest verified posture still what this credential or token rests on, and until when?

Asked for every token request and every introspection, of the rows as they are now. A credential lives no
longer than its posture: at a new boot, a ban, a refused posture or a withdrawn root, what was issued before
is dead wherever this service is asked.
"""

from typing import Protocol

from attestd.oauth.errors import OAuthError
from attestd.service import Service
from attestd.store import credentials, devices
from attestd.store.devices import Device
from attestd.store.engine import Transaction

_TOLD = {
    "credential_ended": "The credential has ended; attest again.",
    "device_unknown": "The device is not known.",
    "device_pending": "The device waits for an operator's approval.",
    "device_banned": "An operator has banned or retired the device.",
    "tpm_denied": "The operator refuses TPMs of this maker or firmware.",
    "root_withdrawn": "The root that vouched for the device's TPM is trusted no more.",
    "boot_ended": "The device has booted since; attest again.",
    "posture_lost": "The device's latest posture was not accepted; attest again.",
    "posture_old": "The device's latest posture is too old; attest again.",
}
_NO_CLIENT = frozenset({"credential_ended", "device_unknown", "device_pending", "device_banned"})


class Appraised(Protocol):
    """A device as its latest verdict left it: a `devices.Device`, or the part of it that decides."""

    @property
    def device_id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def posture(self) -> str | None: ...
    @property
    def root_sha256(self) -> str | None: ...
    @property
    def reset_count(self) -> int | None: ...
    @property
    def restart_count(self) -> int | None: ...
    @property
    def manufacturer(self) -> str | None: ...
    @property
    def firmware_version(self) -> int | None: ...


class RestsOnPosture(Protocol):
    """What was issued for one boot of one device: a credential, or a token."""

    @property
    def device_id(self) -> str: ...
    @property
    def reset_count(self) -> int: ...
    @property
    def restart_count(self) -> int: ...
    @property
    def root_sha256(self) -> str | None: ...
    @property
    def expires_at(self) -> int: ...
    def is_live(self, now: int) -> bool: ...


def fault(service: Service, device: Appraised | None, issued: RestsOnPosture, *, now: int) -> str | None:
    """The audit word for why `issued` is dead; None while it is live.

    The posture's age is not asked: what was issued ends by itself, before its posture is too old.

    Problem `unavailable` while the trust store cannot be read: then nobody is trusted.
    """
    # 1. It was not ended, by time or by anybody.
    if not issued.is_live(now):
        return "credential_ended"
    # 2. Its device may speak.
    if device is None or device.device_id != issued.device_id:
        return "device_unknown"
    if device.state != "active":
        return "device_pending" if device.state == "pending" else "device_banned"
    # 3. Its TPM is not denied, and whoever vouched for it is still trusted, then and now.
    if word := _mistrust(service, device, issued, now=now):
        return word
    # 4. The device has not booted since.
    if (device.reset_count, device.restart_count) != (issued.reset_count, issued.restart_count):
        return "boot_ended"
    # 5. How it booted is accepted, by the latest verdict.
    if device.posture != "accepted":
        return "posture_lost"
    return None


def _mistrust(service: Service, device: Appraised, issued: RestsOnPosture, *, now: int) -> str | None:
    admission = service.config.admission
    if device.manufacturer in admission.denied_manufacturers:
        return "tpm_denied"
    if device.firmware_version in admission.denied_firmware:
        return "tpm_denied"
    if device.device_id in admission.ek_allow:
        return None
    roots = {root for root in (issued.root_sha256, device.root_sha256) if root is not None}
    return None if all(service.trusts(root, now=now) for root in roots) else "root_withdrawn"


def live_posture(
    service: Service, device: Device | None, issued: RestsOnPosture, *, now: int, max_age: int | None
) -> int:
    """Until when (milliseconds) something new may rest on it: the posture's end, or what was issued's.

    `max_age` is the grant's `max_posture_age` in seconds. OAuthError `invalid_grant`, or `invalid_client`
    where the client itself is no more.
    """
    word = fault(service, device, issued, now=now)
    if word is None and _posture_end(device, max_age) <= now:
        word = "posture_old"
    if word is not None:
        raise OAuthError("invalid_client" if word in _NO_CLIENT else "invalid_grant", _TOLD[word], cause=word)
    return min(_posture_end(device, max_age), issued.expires_at)


def live_posture_in(
    service: Service, tx: Transaction, credential_id: str, *, now: int, max_age: int | None
) -> int:
    """The same of the rows as they are in this transaction: for the one that records an outcome."""
    credential = credentials.get(tx, credential_id)
    if credential is None:
        raise OAuthError("invalid_client", _TOLD["credential_ended"], cause="credential_ended")
    device = devices.find(tx, credential.device_id)
    return live_posture(service, device, credential, now=now, max_age=max_age)


def is_live(service: Service, device: Appraised | None, issued: RestsOnPosture, *, now: int) -> bool:
    """For introspection, of every device in a chain."""
    return fault(service, device, issued, now=now) is None


def _posture_end(device: Device | None, max_age: int | None) -> int:
    """When the device's accepted posture is too old, in milliseconds. A policy's `max_posture_age` replaces
    the end that its credentials gave it."""
    if device is None or device.posture_at is None:
        return 0
    return (device.posture_until or 0) if max_age is None else device.posture_at + max_age * 1000
