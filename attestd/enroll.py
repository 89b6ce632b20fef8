"""Which machine is this? Its attestation key is proven to live beside the key for which a maker vouches.

    begin      1  keys and certificates read                          tpm.structures
               2  EK in a TCG template, AK of exact attributes        tpm.verify
               3  the maker's certificate vouches for the EK          trust → Admission
               4  a secret that only this EK with this AK opens       tpm.seal
    activate   1  the enrolment is one that we began, and is fresh    nonce
               2  the proof is made with the opened secret
               3  spent, admitted and recorded                        store, one transaction

`begin` keeps nothing of an enrolment: it is a sealed token that holds everything. What an operator decided
about a device (bans, approval) is told only to who has proven to be it.
"""

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Any

from attestd.clock import rfc3339
from attestd.protocol import ActivationBody, EnrollmentBody
from attestd.service import Service
from attestd.store import audit, devices, enrollments, meta
from attestd.store.audit import AuditEvent
from attestd.store.devices import Assurance, Device, Enrolment, State
from attestd.store.engine import Transaction
from attestd.vouch import find_voucher, set_aside
from attestd.wire import Problem, b64, b64encode, to_problem
from tpm.errors import AttestationError, EvidenceError, StructureError
from tpm.seal.credential import make_credential
from tpm.structures.public import PublicArea, parse_sized_public
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement import VerifiedEndorsement
from tpm.verify.endorsement_path import UNTRUSTED
from tpm.verify.keys import accept_attestation_key
from tpm.verify.templates import match_ek_template

LIFETIME_MS = 5 * 60 * 1000
SECRET_SIZE = 32
_PROOF_LABEL = b"attestd-activate"
# What a software TPM's certificate says of its maker: IBM's PCI vendor id, in swtpm's own writing.
_EMULATORS = frozenset({"id:00001014"})
_VOUCHED = ("assurance", "ek_certificate", "ek_chain", "root_sha256", "manufacturer", "model", "version")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A TPM whose keys are in order, before it has proven that it holds them."""

    device_id: str
    ek: PublicArea
    ek_certificate: bytes | None
    ek_chain: tuple[bytes, ...]
    ak: PublicArea
    hostname: str | None
    endorsement: VerifiedEndorsement | None
    assurance: Assurance
    admitted: bool


def begin(service: Service, body: EnrollmentBody, *, now: int, request_id: str) -> dict[str, Any]:
    """Answer 201: the enrolment and a credential challenge for its EK. Writes nothing, but the maker whom it
    refuses because nobody trusts it."""
    try:
        candidate = examine(service, body, now=now)
    except Problem as problem:
        if problem.cause == UNTRUSTED:
            set_aside(service, body, now=now)
        raise
    secret = secrets.token_bytes(SECRET_SIZE)
    challenge = make_credential(candidate.ek, candidate.ak.name, secret)
    token = _seal(service, body, secret, now=now)
    return {
        "enrollment": token,
        "credential": {
            "id_object": b64encode(challenge.id_object),
            "encrypted_secret": b64encode(challenge.encrypted_secret),
        },
        "expires_at": rfc3339(now + LIFETIME_MS),
    }


def activate(service: Service, body: ActivationBody, *, now: int, request_id: str) -> dict[str, Any]:
    """Answer 201: the device and its state; the same once more as long as that AK is the device's."""
    # 1. The enrolment is one that we began, at most five minutes ago.
    begun, secret, expires_at = _open(service, body.enrollment, now=now)
    # 2. Who answers has opened the secret, and believes to be talking to us.
    expected = activation_proof(secret, service.config.external_url, body.enrollment)
    if not hmac.compare_digest(expected, body.proof):
        detail = "The proof is not made with the activated secret."
        raise Problem("enrollment_refused", detail, cause="wrong_proof")
    # 3. Spent, admitted and recorded, or nothing of it.
    candidate = examine(service, begun, now=now)
    signer = service.audit_signer(now)
    spent = hashlib.sha256(body.enrollment.encode()).hexdigest()

    def admit(tx: Transaction) -> tuple[Device | None, Problem | None]:
        device, problem = _admit(service, tx, candidate, spent=(spent, expires_at), now=now)
        event = _event(candidate.device_id, device, problem, request_id)
        audit.append(tx, signer, event, chain=candidate.device_id, now=now)
        return device, problem

    device, problem = service.store.write(admit)
    if problem is not None:
        problem.recorded, problem.device_id = True, candidate.device_id
        raise problem
    assert device is not None
    return {"device_id": device.device_id, "state": device.state}


def activation_proof(secret: bytes, server: str, enrollment: str) -> bytes:
    """HMAC-SHA-256 over what is proven, to whom, and for which attempt: a secret relayed from another server
    proves nothing."""
    message = b"\0".join((_PROOF_LABEL, server.encode(), enrollment.encode()))
    return hmac.new(secret, message, hashlib.sha256).digest()


def examine(service: Service, body: EnrollmentBody, *, now: int) -> Candidate:
    """Keys, template and chain are in order; Problem `malformed`, `noncanonical` or `enrollment_refused`."""
    ek = _public(body.ek_public, "/ek_public")
    ak = _public(body.ak_public, "/ak_public")
    try:
        match_ek_template(ek)
        accept_attestation_key(ak)
        device_id = device_identifier(ek.public_key())
    except AttestationError as error:
        raise Problem("enrollment_refused", error.detail, cause=error.reason) from None
    voucher = find_voucher(service, body, ek, device_id, now=now)
    endorsement = voucher.endorsement
    allowed = device_id in service.config.admission.ek_allow
    tofu = service.config.admission.tofu
    if not allowed and endorsement is None and not tofu and not _known(service, device_id):
        raise _nobody_vouches(body.ek_certificate is not None)
    return Candidate(
        device_id,
        ek,
        voucher.certificate,
        voucher.chain,
        ak,
        body.hostname,
        endorsement,
        _assurance(endorsement, allowed),
        allowed or (endorsement is not None and service.config.admission.auto_admit),
    )


def _public(raw: bytes, pointer: str) -> PublicArea:
    try:
        public = parse_sized_public(raw)
        public.public_key()
    except StructureError as error:
        raise to_problem(error, pointer) from None
    return public


def _nobody_vouches(has_certificate: bool) -> Problem:
    if has_certificate:
        detail = "No trusted root vouches for the EK certificate; an operator can import its maker's root."
        return Problem("enrollment_refused", detail, cause=UNTRUSTED)
    detail = "The TPM has no EK certificate; an operator can add the device to ek_allow."
    return Problem("enrollment_refused", detail, cause="ek_certificate_missing")


def _known(service: Service, device_id: str) -> bool:
    """An operator has imported or approved this EK before, or it has been admitted: its own state decides."""
    return service.store.read(lambda tx: devices.find(tx, device_id)) is not None


def _assurance(endorsement: VerifiedEndorsement | None, allowed: bool) -> Assurance:
    if endorsement is not None:
        return "emulated" if endorsement.manufacturer in _EMULATORS else "ek_verified"
    return "allow_listed" if allowed else "first_use"


# --- the enrolment, sealed ----------------------------------------------------------------------


def _seal(service: Service, body: EnrollmentBody, secret: bytes, *, now: int) -> str:
    value = {
        "ek_public": b64encode(body.ek_public),
        "ek_certificate": None if body.ek_certificate is None else b64encode(body.ek_certificate),
        "ek_chain": [b64encode(certificate) for certificate in body.ek_chain],
        "ak_public": b64encode(body.ak_public),
        "hostname": body.hostname,
        "secret": b64encode(secret),
        "expires_at": now + LIFETIME_MS,
    }
    return urlsafe_b64encode(service.enrollments.seal(json.dumps(value).encode())).decode()


def _open(service: Service, token: str, *, now: int) -> tuple[EnrollmentBody, bytes, int]:
    gone = Problem(
        "not_found", "No such enrolment, or it has expired; enrol again.", cause="enrollment_unknown"
    )
    try:
        sealed = urlsafe_b64decode(token.encode("ascii"))
        value = json.loads(service.enrollments.open(sealed))
    except (ValueError, EvidenceError):
        raise gone from None
    # The replica that began it may be ahead of us.
    longest = LIFETIME_MS + service.config.limits.clock_skew * 1000
    if urlsafe_b64encode(sealed).decode() != token or not 0 <= value["expires_at"] - now <= longest:
        raise gone
    secret, expires_at = b64(value.pop("secret"), ""), value.pop("expires_at")
    return EnrollmentBody.model_validate(value), secret, expires_at


# --- admission ----------------------------------------------------------------------------------


def _admit(
    service: Service, tx: Transaction, candidate: Candidate, *, spent: tuple[str, int], now: int
) -> tuple[Device | None, Problem | None]:
    """The device as it now stands, or why not. Runs inside the transaction that also records it."""
    if not meta.advance_time(tx, now, service.config.limits.clock_skew * 1000):
        # A second life for spent enrolments would begin here.
        detail = "The service's clock went back; try again later."
        return None, Problem("unavailable", detail, cause="clock_went_back")
    known = devices.find(tx, candidate.device_id)
    ak_name = candidate.ak.name.hex()
    # Remembered for longer than any clock skew that is let pass.
    forget_at = spent[1] + LIFETIME_MS
    fresh = enrollments.spend(
        tx, spent[0], device_id=candidate.device_id, ak_name=ak_name, expires_at=forget_at
    )
    if known is not None and known.state in ("banned", "retired"):
        detail = "An operator has banned or retired this device."
        return None, Problem("device_banned", detail, cause=f"ek_{known.state}")
    if not fresh:
        if known is not None and known.ak_name == ak_name:
            return known, None
        detail = "The device has a newer attestation key; enrol again."
        return None, Problem("conflict", detail, cause="activation_spent")
    holder = devices.find_by_ak_name(tx, ak_name)
    if holder is not None and holder.device_id != candidate.device_id:
        return None, Problem("identity_bound", "Another device holds this attestation key.", cause="ak_bound")
    if known is not None:
        devices.enrol(tx, candidate.device_id, _enrolment(candidate, known), now)
        return devices.find(tx, candidate.device_id), None
    if not candidate.admitted and devices.count_pending(tx) >= service.config.admission.pending_max:
        detail = "Too many devices wait for an operator's approval; try again later."
        return None, Problem("slow_down", detail, cause="pending_full", retry_after=300)
    return devices.insert(tx, _new_device(candidate, now=now)), None


def _new_device(candidate: Candidate, *, now: int) -> Device:
    state: State = "active" if candidate.admitted else "pending"
    enrolment = {name: getattr(_enrolment(candidate, None), name) for name in Enrolment.__slots__}
    return Device(device_id=candidate.device_id, state=state, created_at=now, updated_at=now, **enrolment)


def _enrolment(candidate: Candidate, known: Device | None) -> Enrolment:
    """The keys, and who vouches for them: who did before, where nobody does now."""
    endorsement = candidate.endorsement
    fresh = Enrolment(
        assurance=candidate.assurance,
        ek_public=candidate.ek.sized,
        ek_certificate=candidate.ek_certificate,
        ek_chain=candidate.ek_chain,
        ak_public=candidate.ak.sized,
        ak_name=candidate.ak.name.hex(),
        hostname=candidate.hostname,
        root_sha256=None if endorsement is None else endorsement.root_sha256,
        manufacturer=None if endorsement is None else endorsement.manufacturer,
        model=None if endorsement is None else endorsement.model,
        version=None if endorsement is None else endorsement.version,
    )
    if known is None or fresh.assurance != "first_use":
        return fresh
    # A device cannot shed a withdrawn root by enrolling again, nor an operator's choice.
    return replace(fresh, **{name: getattr(known, name) for name in _VOUCHED})


def _event(device_id: str, device: Device | None, problem: Problem | None, request_id: str) -> AuditEvent:
    """The audit record of one activation, for the device's chain: its TPM has proven that it is there."""
    return AuditEvent(
        event="activate",
        decision="refused" if device is None else "accepted",
        code=None if problem is None else problem.code,
        cause=None if problem is None else problem.cause,
        request_id=request_id,
        device_id=device_id,
        details={}
        if device is None
        else {"state": device.state, "assurance": device.assurance, "ak": device.ak_name},
    )
