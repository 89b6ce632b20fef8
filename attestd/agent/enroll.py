"""How does this machine become a device of a service?

Its TPM shows who it is and opens a secret that was made for it. Doing it again is harmless: the same
attestation key gives the same answer, and a half-finished enrolment begins anew.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from attestd.agent.state import Membership, State
from attestd.agent.transport import Server, Unreachable, hostname
from attestd.wire import Problem, b64, b64encode
from tpm.device.device import Device
from tpm.device.endorsement import Endorsement
from tpm.structures.public import PublicArea

_PROOF_LABEL = b"attestd-activate"


def enroll(device: Device, server: Server, state: State, *, ak: str = "p256") -> Membership:
    """Enrol, or enrol again; returns the device as the service now knows it. Refusal, Unreachable or
    DeviceError."""
    endorsement = device.endorsement()
    # 1. The key is kept before anybody hears of it: an enrolment that succeeds can be used.
    recipe = state.recipe()
    if recipe is None:
        recipe = device.create_ak(ak)
        state.keep_recipe(recipe)
    # 2. The service sees the keys and makes a secret for them.
    with device.ak(recipe) as key:
        answer = server.post("/v1/enrollments", _introduction(endorsement, key.public))
        token, id_object, encrypted = _challenge_of(answer)
        # 3. This TPM opens it.
        with device.ek(endorsement.kind) as ek:
            secret = device.activate(ek, key, id_object, encrypted)
    # 4. The answer proves that, to this server and for this attempt alone.
    proof = activation_proof(secret, server.url, token)
    told = server.post("/v1/activations", {"enrollment": token, "proof": b64encode(proof)})
    membership = Membership(server.url, _text(told, "device_id"), _text(told, "state"), endorsement.kind)
    state.keep_membership(membership)
    return membership


def activation_proof(secret: bytes, server: str, enrollment: str) -> bytes:
    """HMAC-SHA-256 that names the server as this device was told it: relayed elsewhere it proves nothing."""
    message = b"\0".join((_PROOF_LABEL, server.encode(), enrollment.encode()))
    return hmac.new(secret, message, hashlib.sha256).digest()


def _introduction(endorsement: Endorsement, ak: PublicArea) -> dict[str, Any]:
    certificate = endorsement.certificate
    return {
        "ek_public": b64encode(endorsement.public.sized),
        "ek_certificate": None if certificate is None else b64encode(certificate),
        "ek_chain": [b64encode(each) for each in endorsement.chain],
        "ak_public": b64encode(ak.sized),
        "hostname": hostname(),
    }


def _challenge_of(answer: Mapping[str, Any]) -> tuple[str, bytes, bytes]:
    credential = answer.get("credential")
    if not isinstance(credential, dict):
        raise Unreachable("the server's enrolment has no credential; is it attestd?")
    try:
        return (
            _text(answer, "enrollment"),
            b64(_text(credential, "id_object"), "id_object"),
            b64(_text(credential, "encrypted_secret"), "encrypted_secret"),
        )
    except Problem as problem:
        raise Unreachable(f"the server's enrolment cannot be read: {problem.detail}") from None


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise Unreachable(f"the server's answer has no {name}; is it attestd, in this version?")
    return value
