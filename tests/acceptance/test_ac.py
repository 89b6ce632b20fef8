"""AC: does only the TPM that opened our secret become a device, and only with a key as it must be?"""

import hmac
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.attester import (
    AES128CFB,
    AK_ATTRIBUTES,
    ECDSA_SHA256,
    EK_ATTRIBUTES,
    POLICY_A,
    Machine,
    TpmKey,
    activation_body,
    b64,
    enrollment_body,
    new_key,
    opened,
    public_area,
    sized,
)
from tests.deployment import SERVER, Deployment
from tests.tpm import forge
from tests.tpm.verify.test_templates import TEMPLATES

ENROLL, ACTIVATE = "/v1/enrollments", "/v1/activations"


# AC-1

PROOFS: dict[str, Any] = {
    "empty": "",
    "one byte": b64(b"\0"),
    "zeros": b64(bytes(32)),
    "short": lambda proof: b64(proof[:31]),
    "half": lambda proof: b64(proof[:16]),
    "long": lambda proof: b64(proof + b"\0"),
    "twice": lambda proof: b64(proof * 2),
    "one bit": lambda proof: b64(bytes([proof[0] ^ 1]) + proof[1:]),
    "last bit": lambda proof: b64(proof[:-1] + bytes([proof[-1] ^ 1])),
    "hexadecimal": lambda proof: b64(proof.hex().encode()),
}
TYPES: list[Any] = [None, 0, 1, True, [], ["x"], {}, {"proof": "x"}, 2**63]


@pytest.mark.parametrize("kind", PROOFS)
def test_ac_1_a_proof_that_is_not_the_proof_is_refused(plant: Deployment, kind: str) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    good = activation_body(machine, begun, SERVER)
    wrong = PROOFS[kind]
    bad = {**good, "proof": wrong(b64decode(good["proof"])) if callable(wrong) else wrong}
    told = plant.problem(bad, 403, "enrollment_refused", ACTIVATE, cause="wrong_proof")
    # One body for every proof, and nothing of the right one in it.
    assert told.pop("request_id")
    assert told == {
        "type": "urn:attestd:problem:enrollment_refused",
        "title": "Forbidden",
        "status": 403,
        "detail": "The proof is not made with the activated secret.",
        "code": "enrollment_refused",
    }
    plant.expect(201, ACTIVATE, good)


@pytest.mark.parametrize("value", TYPES, ids=repr)
def test_ac_1_a_proof_is_text(plant: Deployment, value: Any) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    good = activation_body(machine, begun, SERVER)
    told = plant.problem({**good, "proof": value}, 400, "malformed", ACTIVATE)
    assert told["pointer"] == "/proof"
    plant.expect(201, ACTIVATE, good)


@pytest.mark.parametrize("server", ["http://127.0.0.1:8441", SERVER + "/", "https://evil.example.org", ""])
def test_a_secret_relayed_from_another_server_opens_nothing_here(plant: Deployment, server: str) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    relayed = activation_body(machine, begun, server)
    plant.problem(relayed, 403, "enrollment_refused", ACTIVATE, cause="wrong_proof")
    plant.expect(201, ACTIVATE, activation_body(machine, begun, SERVER))


def test_the_secret_itself_is_no_proof(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    parts = begun["credential"]
    secret = machine.activate(b64decode(parts["id_object"]), b64decode(parts["encrypted_secret"]))
    over_nothing = hmac.digest(secret, b"", "sha256")
    for raw in (secret, over_nothing):
        bad = {"enrollment": begun["enrollment"], "proof": b64(raw)}
        plant.problem(bad, 403, "enrollment_refused", ACTIVATE, cause="wrong_proof")
    plant.expect(201, ACTIVATE, activation_body(machine, begun, SERVER))


# AC-2


def test_ac_2_a_proof_belongs_to_one_enrolment(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    first = plant.expect(201, ENROLL, enrollment_body(machine))
    second = plant.expect(201, ENROLL, enrollment_body(machine))
    proofs = [activation_body(machine, begun, SERVER) for begun in (first, second)]
    for mine, others in (proofs, proofs[::-1]):
        crossed = {**mine, "proof": others["proof"]}
        plant.problem(crossed, 403, "enrollment_refused", ACTIVATE, cause="wrong_proof")
    for proof in proofs:
        plant.expect(201, ACTIVATE, proof)


def test_ac_2_the_same_proof_again_answers_the_same_until_the_key_has_changed(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    proof = activation_body(machine, begun, SERVER)
    first = plant.expect(201, ACTIVATE, proof)
    before = plant.kept()
    assert plant.expect(201, ACTIVATE, proof) == first
    assert plant.kept() == before
    plant.enroll(machine.with_new_ak())
    plant.problem(proof, 409, "conflict", ACTIVATE, cause="activation_spent")


def test_ac_2_nor_does_it_bring_a_replaced_key_back(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    proof = activation_body(machine, plant.expect(201, ENROLL, enrollment_body(machine)), SERVER)
    plant.expect(201, ACTIVATE, proof)
    rotated = machine.with_new_ak()
    plant.enroll(rotated)
    plant.problem(proof, 409, "conflict", ACTIVATE)
    plant.attest(rotated)


# AC-4

NO_DA, RESERVED = 10, {0, 3, 8, 9, 12, 13, 14, 15, *range(20, 32)}


@pytest.mark.parametrize("bit", range(32))
def test_ac_4_an_attestation_key_has_exactly_these_attributes(plant: Deployment, bit: int) -> None:
    machine = Machine.create(plant.maker)
    odd = machine.with_new_ak(machine.ak, attributes=AK_ATTRIBUTES ^ 1 << bit)
    if bit == NO_DA:
        plant.enroll(odd)
        plant.attest(odd)
    elif bit in RESERVED:
        told = plant.problem(enrollment_body(odd), 400, "malformed", ENROLL, cause="reserved_attributes")
        assert told["pointer"] == "/ak_public"
    else:
        plant.problem(enrollment_body(odd), 403, "enrollment_refused", ENROLL, cause="ak_attributes")
    plant.enroll(machine)


SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "a policy": ({"policy": POLICY_A}, "ak_attributes"),
    "a symmetric part": ({"symmetric": AES128CFB}, "ak_attributes"),
    "a Name of SHA-1": ({"name_alg": "sha1"}, "ak_attributes"),
    "no scheme": ({"scheme": b"\x00\x10"}, "ak_scheme"),
    "ECDH": ({"scheme": bytes.fromhex("0019000b")}, "ak_scheme"),
    "SHA-1": ({"scheme": bytes.fromhex("00180004")}, "ak_scheme"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ac_4_nor_is_anything_else_different(plant: Deployment, shape: str) -> None:
    machine = Machine.create(plant.maker)
    changes, cause = SHAPES[shape]
    odd = machine.with_new_ak(machine.ak, **changes)
    plant.problem(enrollment_body(odd), 403, "enrollment_refused", ENROLL, cause=cause)
    plant.enroll(machine)


def test_ac_4_a_modulus_has_the_bits_that_it_claims(plant: Deployment) -> None:
    machine = Machine.create(plant.maker, ak="rsa")
    raw = machine.ak_public
    halved = raw[:-256] + bytes([raw[-256] >> 1]) + raw[-255:]
    shorter = raw[:-258] + sized(raw[-255:])
    for wrong in (halved, shorter):
        body = enrollment_body(machine, ak_public=b64(sized(wrong)))
        plant.problem(body, 403, "enrollment_refused", ENROLL, cause="ak_attributes")
    plant.enroll(machine)


# AC-5


def with_ek(machine: Machine, **shape: Any) -> Machine:
    """The same key in another public area."""
    good: dict[str, Any] = {"attributes": EK_ATTRIBUTES, "policy": POLICY_A, "symmetric": AES128CFB}
    return replace(machine, ek_public=public_area(machine.ek, **(good | shape)))


NO_TEMPLATES: dict[str, dict[str, Any]] = {
    "a signing key": {"attributes": 0x00040072, "scheme": ECDSA_SHA256, "symmetric": b"\x00\x10"},
    "an attestation key": {"attributes": AK_ATTRIBUTES, "scheme": ECDSA_SHA256, "symmetric": b"\x00\x10"},
    "a storage key": {"attributes": 0x00030472, "policy": b""},
    "unrestricted": {"attributes": EK_ATTRIBUTES & ~0x00010000},
    "with a password": {"attributes": EK_ATTRIBUTES | 0x40},
    "not of this TPM": {"attributes": EK_ATTRIBUTES & ~0x2},
    "no policy": {"policy": b""},
    "another policy": {"policy": POLICY_A[:-1] + b"\0"},
    "no cipher": {"symmetric": b"\x00\x10"},
    "AES-256": {"symmetric": bytes.fromhex("000601000043")},
    "another mode": {"symmetric": bytes.fromhex("000600800040")},
    "a Name of SHA-384": {"name_alg": "sha384", "policy": b""},
}


@pytest.mark.parametrize("shape", NO_TEMPLATES)
@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_ac_5_an_endorsement_key_follows_a_template(plant: Deployment, kind: str, shape: str) -> None:
    machine = Machine.create(plant.maker, ek=kind)
    changes = dict(NO_TEMPLATES[shape])
    if "scheme" in changes and kind == "rsa":
        changes["scheme"] = bytes.fromhex("0014000b")
    odd = with_ek(machine, **changes)
    plant.problem(enrollment_body(odd), 403, "enrollment_refused", ENROLL, cause="ek_template")
    plant.enroll(with_ek(machine))


def test_ac_5_rsa_of_another_size_follows_none(plant: Deployment) -> None:
    key = rsa.generate_private_key(65537, 3072)
    machine = replace(Machine.create(plant.maker), ek=key, ek_certificate=plant.maker.endorse(key))
    body = enrollment_body(with_ek(machine))
    plant.problem(body, 403, "enrollment_refused", ENROLL, cause="ek_template")
    plant.enroll(Machine.create(plant.maker, ek="rsa"))


@pytest.mark.parametrize(("certified", "sent"), [("rsa", "p256"), ("p256", "rsa")])
def test_ac_5_the_key_is_of_the_type_that_the_certificate_says(
    plant: Deployment, certified: str, sent: str
) -> None:
    other, machine = new_key(certified), Machine.create(plant.maker, ek=sent)
    body = enrollment_body(machine, ek_certificate=b64(plant.maker.endorse(other)))
    plant.problem(body, 403, "enrollment_refused", ENROLL, cause="ek_key_mismatch")
    plant.enroll(machine)


@pytest.mark.parametrize("template", ["L-1", "L-2", "H-1", "H-2", "H-3", "H-4", "H-6"])
def test_ac_5_a_tpm_of_every_template_enrols_and_takes_its_sealed_key(
    plant: Deployment, template: str
) -> None:
    kind, shape = TEMPLATES[template]
    key = forge.private_key(kind)
    endorsed = replace(Machine.create(plant.maker), ek=key, ek_certificate=plant.maker.endorse(key))
    machine = replace(endorsed, ek_public=forge.public_area(key, **shape))
    plant.enroll(machine)
    (sealed,) = plant.attest(machine, sealed_keys=[{"name": "disk", "parent": "ek"}])["sealed_keys"]
    assert len(opened(TpmKey(machine.ek, machine.ek_public), sealed)) == 32
