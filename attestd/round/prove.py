"""Did this device's TPM sign this request, just now?

Nothing is spent or written before this holds: who does not have the attestation key can burn nothing and
change nothing.
"""

from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec

from attestd.round.claim import Claim
from attestd.service import Service
from attestd.store import devices
from attestd.store.devices import Device
from attestd.wire import Problem
from tpm.errors import EvidenceError
from tpm.structures.algorithms import SHA256
from tpm.structures.public import parse_sized_public
from tpm.verify.keys import AttestationKey, accept_attestation_key, bare_attestation_key, expected_signers
from tpm.verify.quote import VerifiedQuote, verify_quote

Signers = frozenset[bytes]
_NOT_SIGNED = frozenset({"bad_signature", "scheme_mismatch"})


@dataclass(frozen=True, slots=True)
class Proven:
    """A request that this device's TPM signed; `device` is the row by which it was judged, `issued_at` its
    nonce's time."""

    device: Device
    ak: AttestationKey
    signers: Signers
    quote: VerifiedQuote
    issued_at: int


def prove(service: Service, claim: Claim) -> Proven:
    """Problem `attestation_failed`, with one body for every cause; an unknown device is judged against a
    dummy key."""
    device_id = claim.request.device_id
    device = service.store.read(lambda tx: devices.find(tx, device_id))
    ak, signers = _keys(device, claim)
    try:
        # 1. The request names us: evidence made for another server proves nothing here.
        if claim.request.server != service.config.external_url:
            raise EvidenceError("wrong_server", f"the request is for {claim.request.server}")
        # 2. The nonce is ours, for this device and this purpose.
        issued_at = service.nonces.issued_at(claim.request.nonce, device_id)
        # 3. A TPM made the quote: its magic number and type.
        if isinstance(claim.quote, EvidenceError):
            raise claim.quote
        # 4. The device's attestation key signed it, under its own qualified Name, over these request bytes.
        quote = verify_quote(
            claim.quote,
            claim.signature,
            ak=ak,
            expected_extra_data=claim.request_digest,
            expected_signers=signers,
        )
        # 5. The key is that of an enrolled device.
        if device is None or device.ak_public is None:
            raise EvidenceError("ak_not_activated", "no device of this identifier has finished its enrolment")
    except EvidenceError as error:
        cause = _cause(error, claim, signers, enrolled=device is not None and device.ak_public is not None)
        problem = Problem("attestation_failed", error.detail, cause=cause)
        problem.claimed, problem.evidence_sha256 = device_id, claim.evidence_digest
        raise problem from None
    return Proven(device, ak, signers, quote, issued_at)


def check_fresh(service: Service, proven: Proven, *, now: int) -> None:
    """The nonce's time has not run out, nor has it yet to come; Problem `nonce_expired`. Then the device's
    own rate."""
    limits = service.config.limits
    age = now - proven.issued_at
    if age > limits.nonce_ttl * 1000:
        raise _of(proven, Problem("nonce_expired", "The nonce has expired; ask for a new challenge."))
    if age < -limits.clock_skew * 1000:
        detail = "The nonce is from a time that has not come; ask for a new challenge."
        raise _of(proven, Problem("nonce_expired", detail, cause="nonce_from_future"))
    try:
        service.limits.admit_device(proven.device.device_id, now=now)
    except Problem as problem:
        raise _of(proven, problem) from None


def _of(proven: Proven, problem: Problem) -> Problem:
    problem.device_id = proven.device.device_id
    return problem


def _cause(error: EvidenceError, claim: Claim, signers: Signers, *, enrolled: bool) -> str:
    """The audit's word. A signature that fails under a foreign signer's name is another key's, not a damaged
    one."""
    if error.reason not in _NOT_SIGNED or isinstance(claim.quote, EvidenceError):
        return error.reason
    if not enrolled:
        return "ak_not_activated"
    return error.reason if claim.quote.qualified_signer in signers else "ak_not_of_device"


def _keys(device: Device | None, claim: Claim) -> tuple[AttestationKey, Signers]:
    if device is None or device.ak_public is None or device.ek_public is None:
        signer = b"" if isinstance(claim.quote, EvidenceError) else claim.quote.qualified_signer
        return _dummy_key(), frozenset({signer})
    return _load_keys(device.ek_public, device.ak_public)


@lru_cache(maxsize=4096)
def _load_keys(ek_public: bytes, ak_public: bytes) -> tuple[AttestationKey, Signers]:
    """By content: what a stored key is need be worked out once."""
    ak = accept_attestation_key(parse_sized_public(ak_public))
    return ak, expected_signers(ak, parse_sized_public(ek_public))


@lru_cache(maxsize=1)
def _dummy_key() -> AttestationKey:
    """A key that nobody has: verifying under it takes as long as under a device's, and never holds."""
    return bare_attestation_key(ec.generate_private_key(ec.SECP256R1()).public_key(), "ecdsa", SHA256)
