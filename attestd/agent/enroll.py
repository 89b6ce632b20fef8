"""How does this machine become a device of a service?

Its TPM shows who it is and opens a secret that was made for it. Doing it again is harmless: the same
attestation key gives the same answer, and a half-finished enrolment begins anew.
"""

import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from attestd.agent.errors import Misconfigured, Unreachable, plain
from attestd.agent.state import Membership, State
from attestd.agent.transport import Server, hostname
from attestd.wire import Problem, b64, b64encode
from tpm.device.device import Device
from tpm.device.endorsement import Endorsement
from tpm.device.keys import attestation_public
from tpm.errors import DeviceError
from tpm.structures.public import PublicArea
from tpm.verify.device_id import device_identifier

_PROOF_LABEL = b"attestd-activate"
# The TPM that made the key is gone, or its seed is; the recipe makes nothing any more.
_OUTLIVED = frozenset({"ak_changed", "recipe_damaged"})


def enroll(device: Device, server: Server, state: State, *, ak: str | None = None) -> Membership:
    """Enrol, or enrol again; returns the device as the service now knows it. Refusal, Unreachable or
    DeviceError.

    `ak`: the kind of attestation key, "p256" or "rsa"; without it, the one that is there, or P-256.
    """
    recipe = state.recipe()
    try:
        kind = None if recipe is None else _kind(recipe)
        if recipe is not None and ak in (None, kind):
            return _introduce(device, server, state, recipe)
    except DeviceError as error:
        if error.reason not in _OUTLIVED:
            raise
        kind = None if error.reason == "recipe_damaged" else kind
    # The key is kept before anybody hears of it: an enrolment that succeeds can be used.
    recipe = device.create_ak(ak or kind or "p256")
    state.keep_recipe(recipe)
    return _introduce(device, server, state, recipe)


def _introduce(device: Device, server: Server, state: State, recipe: bytes) -> Membership:
    endorsement = device.endorsement()
    # 1. The service sees the keys and makes a secret for them.
    with device.ak(recipe) as key:
        answer = server.post("/v1/enrollments", _introduction(endorsement, key.public))
        token, id_object, encrypted = _challenge_of(answer)
        # 2. This TPM opens it.
        with device.ek(endorsement.kind) as ek:
            secret = device.activate(ek, key, id_object, encrypted)
    # 3. The answer proves that, to this server and for this attempt alone.
    proof = activation_proof(secret, server.url, token)
    told = server.post("/v1/activations", {"enrollment": token, "proof": b64encode(proof)})
    # 4. The service speaks of this machine.
    identifier = device_identifier(endorsement.public.public_key())
    if told.get("device_id") != identifier or told.get("state") not in ("active", "pending"):
        raise Unreachable(f"the server's answer is not about this device, {identifier}; is it attestd?")
    standing, joined = _text(told, "state"), _joined(state, server)
    membership = Membership(server.url, identifier, standing, endorsement.kind, joined)
    state.keep_membership(membership)
    return membership


def _joined(state: State, server: Server) -> str | None:
    """The trust domain that this machine is of already: enrolling anew at the same service leads into no
    other one."""
    with suppress(Misconfigured):  # A damaged file is what enrolling mends.
        before = state.membership()
        if before is not None and before.server == server.url:
            return before.trust_domain
    return None


def _kind(recipe: bytes) -> str:
    return "p256" if attestation_public(recipe).type == "ecc" else "rsa"


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
    token = _text(answer, "enrollment")
    if not token or not token.isascii() or not token.isprintable():
        # It goes into what the secret authenticates: what we mean by that must be beyond doubt.
        raise Unreachable("the server's enrolment is no token; is it attestd?")
    try:
        return (
            token,
            b64(_text(credential, "id_object"), "id_object"),
            b64(_text(credential, "encrypted_secret"), "encrypted_secret"),
        )
    except Problem as problem:
        raise Unreachable(f"the server's enrolment cannot be read: {plain(problem.detail)}") from None


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise Unreachable(f"the server's answer has no {name}; is it attestd, in this version?")
    return value
