"""Is this nonce spent here and now, by a device that may ask? The first transaction: nonce, intent, and
nothing in between.

An intent that never gets an outcome is closed as abandoned by the service's maintenance.
"""

import secrets
from dataclasses import replace

from attestd.round.account import refusal_event
from attestd.round.case import Case
from attestd.round.claim import Claim
from attestd.round.logs import Logs
from attestd.round.prove import Proven
from attestd.service import Service
from attestd.store import attestations, audit, devices, meta, nonces
from attestd.store.devices import Device
from attestd.store.engine import Transaction
from attestd.wire import Problem

_SPENT_FOR_MS = 10 * 60 * 1000
"""How long a spent nonce is remembered beyond its own time; far longer than any clock skew that is let pass.
"""


def open_case(
    service: Service, claim: Claim, proven: Proven, logs: Logs, *, now: int, request_id: str
) -> Case:
    """Spend the nonce and record the intent, or raise: `nonce_spent`, `device_banned`, `device_pending` and
    their like."""
    attestation_id = secrets.token_hex(16)
    signer = service.audit_signer(now)

    def spend(tx: Transaction) -> Case | Problem:
        problem = _spend(service, tx, claim, proven, now=now)
        device = devices.find(tx, claim.request.device_id)
        if problem is None:
            problem = _may_speak(service, device, proven, now=now)
        if problem is not None or device is None:
            assert problem is not None
            event = refusal_event(claim, problem, request_id)
            audit.append(tx, signer, event, chain=claim.request.device_id, now=now)
            return problem
        attestations.open_intent(
            tx,
            attestation_id,
            device_id=device.device_id,
            request_sha256=claim.request_digest.hex(),
            evidence_sha256=claim.evidence_digest,
            now=now,
        )
        vouched = _as_vouched_today(service, device, now=now)
        active = service.policies.active(tx)
        return Case(attestation_id, request_id, claim, proven, vouched, active, logs)

    opened = service.store.write(spend)
    if isinstance(opened, Problem):
        opened.recorded, opened.device_id = True, claim.request.device_id
        raise opened
    return opened


def _spend(service: Service, tx: Transaction, claim: Claim, proven: Proven, *, now: int) -> Problem | None:
    if not meta.advance_time(tx, now, service.config.limits.clock_skew * 1000):
        # A second life for spent nonces would begin here.
        return Problem(
            "unavailable", "The service's clock went back; try again later.", cause="clock_went_back"
        )
    expires_at = proven.issued_at + service.config.limits.nonce_ttl * 1000 + _SPENT_FOR_MS
    if not nonces.spend(tx, claim.request.nonce, spent_at=now, expires_at=expires_at):
        return Problem("nonce_spent", "The nonce was used before; ask for a new challenge.")
    return None


def _denied(service: Service, device: Device, proven: Proven) -> Problem | None:
    """The operator refuses TPMs of this maker, or with this firmware: no evidence of theirs is worth much."""
    admission = service.config.admission
    if device.manufacturer in admission.denied_manufacturers:
        detail = f"TPMs of {device.manufacturer} are not admitted here."
        return Problem("enrollment_refused", detail, cause="vendor_denied")
    firmware = proven.quote.quote.firmware_version
    if firmware in admission.denied_firmware:
        detail = f"The TPM's firmware {firmware:016x} is not admitted here; update it."
        return Problem("enrollment_refused", detail, cause="tpm_firmware_denied")
    return None


def _may_speak(service: Service, device: Device | None, proven: Proven, *, now: int) -> Problem | None:
    """The device still is what it was when its quote was proven, and its operator lets it ask."""
    if device is None or device.ak_public != proven.device.ak_public:
        return Problem(
            "attestation_failed", "the attestation key was replaced meanwhile", cause="ak_mismatch"
        )
    if device.state in ("banned", "retired"):
        return Problem(
            "device_banned", "An operator has banned or retired this device.", cause=f"ek_{device.state}"
        )
    if device.state != "active":
        return Problem("device_pending", "The device waits for an operator's approval.")
    denied = _denied(service, device, proven)
    if denied is not None:
        return denied
    allowed = device.device_id in service.config.admission.ek_allow
    if device.root_sha256 is not None and not allowed and not service.trusts(device.root_sha256, now=now):
        detail = "The root that vouched for this TPM is trusted no more; an operator can import it again."
        return Problem("enrollment_refused", detail, cause="ek_root_withdrawn")
    return None


def _as_vouched_today(service: Service, device: Device, *, now: int) -> Device:
    """An operator's list outlasts a withdrawn root; what is issued then rests on the list, and says so."""
    listed = device.device_id in service.config.admission.ek_allow
    if not listed or device.root_sha256 is None or service.trusts(device.root_sha256, now=now):
        return device
    return replace(device, assurance="allow_listed", root_sha256=None)
