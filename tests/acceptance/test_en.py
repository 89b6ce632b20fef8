"""EN: who becomes a device, and what can it not choose for itself?"""

from typing import Any

import pytest

from tests.attester import Machine, activation_body, b64, enrollment_body, new_key, sized
from tests.deployment import SERVER, Deployment

ENROLL, ACTIVATE, ATTEST = "/v1/enrollments", "/v1/activations", "/v1/attestations"


def test_en_4_a_key_whose_activation_was_never_finished_attests_nothing(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    told = plant.problem(plant.round(machine).body(), 403, "attestation_failed", cause="ak_not_activated")
    assert "activ" not in told["detail"]
    plant.expect(201, ACTIVATE, activation_body(machine, begun, SERVER))
    assert plant.attest(machine)["verdict"] == "accepted"


@pytest.mark.parametrize(("ek", "ak"), [("p256", "p256"), ("rsa", "rsa")])
def test_en_4_nor_does_a_key_that_nobody_has_enrolled(plant: Deployment, ek: str, ak: str) -> None:
    stranger = Machine.create(plant.maker, ek=ek, ak=ak)
    record = {"cause": "ak_not_activated", "device_id": stranger.device_id}
    plant.problem(plant.round(stranger).body(), 403, "attestation_failed", **record)
    plant.enroll(stranger)
    plant.attest(stranger)


def test_en_7_another_key_of_the_same_tpm_is_not_the_devices(plant: Deployment, gateway: Machine) -> None:
    second = gateway.with_new_ak()
    plant.problem(plant.round(second).body(), 403, "attestation_failed", cause="ak_not_of_device")
    plant.attest(gateway)
    plant.enroll(second)
    plant.attest(second.later())


def test_en_7_a_challenge_opens_for_the_key_that_began_and_no_other(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    # The TPM checks the Name of the attestation key before it lets the secret out.
    with pytest.raises(AssertionError, match="integrity"):
        activation_body(machine.with_new_ak(), begun, SERVER)
    plant.expect(201, ACTIVATE, activation_body(machine, begun, SERVER))


SWITCHES: list[tuple[str, Any]] = [
    ("require_ek_cert", False),
    ("policy", "lab"),
    ("tofu", True),
    ("auto_admit", True),
    ("state", "active"),
    ("device_id", "0" * 64),
    ("name", "gateway-1"),
    ("labels", {"site": "plant-1"}),
]


@pytest.mark.parametrize(("member", "value"), SWITCHES)
def test_en_9_a_device_cannot_choose_how_it_is_judged(
    plant: Deployment, gateway: Machine, member: str, value: Any
) -> None:
    body = enrollment_body(Machine.create(plant.maker))
    told = plant.problem(body | {member: value}, 400, "malformed", ENROLL)
    assert told["pointer"] == f"/{member}"
    plant.expect(201, ENROLL, body)
    if member != "device_id":
        request = plant.round(gateway, **{member: value})
        assert plant.problem(request.body(), 400, "malformed")["pointer"] == f"/request/{member}"
    body = plant.round(gateway).body()
    assert plant.problem(body | {member: value}, 400, "malformed")["pointer"] == f"/{member}"
    plant.expect(200, ATTEST, body)


@pytest.mark.parametrize("verb", ["ban", "retire"])
def test_en_10_a_banned_tpm_stays_out_under_whatever_key_it_comes(plant: Deployment, verb: str) -> None:
    machine = plant.machine()
    plant.attest(machine)
    plant.operate("device", verb, machine.device_id)
    cause = {"ban": "ek_banned", "retire": "ek_retired"}[verb]
    plant.problem(plant.round(machine.later()).body(), 403, "device_banned", cause=cause)
    again = machine.with_new_ak()
    # What an operator decided is told only to who has proven to be that TPM.
    begun = plant.expect(201, ENROLL, enrollment_body(again, hostname="another"))
    plant.problem(activation_body(again, begun, SERVER), 403, "device_banned", ACTIVATE, cause=cause)
    assert plant.row(machine).ak_public == sized(machine.ak_public)
    plant.operate("device", "unban", machine.device_id)
    plant.enroll(again)
    plant.attest(again.later(2000))


def test_en_10_a_ban_ends_what_was_issued(plant: Deployment) -> None:
    machine = plant.machine()
    asked = {"format": "jwt-svid", "agent": "billing", "audience": ["https://a.example.org"]}
    plant.attest(machine, credentials=[asked])
    other = plant.machine()
    plant.attest(other, credentials=[asked])
    plant.operate("device", "ban", machine.device_id)
    assert (plant.live(machine), plant.live(other)) == (0, 1)
    plant.operate("device", "unban", machine.device_id)
    assert plant.live(machine) == 0


def test_an_endorsement_key_of_a_foreign_certificate_is_refused_at_once(plant: Deployment) -> None:
    machine, other = Machine.create(plant.maker), Machine.create(plant.maker)
    body = enrollment_body(machine, ek_certificate=b64(other.ek_certificate or b""))
    plant.problem(body, 403, "enrollment_refused", ENROLL, cause="ek_key_mismatch")
    foreign = enrollment_body(machine, ek_public=b64(sized(other.ek_public)))
    plant.problem(foreign, 403, "enrollment_refused", ENROLL, cause="ek_key_mismatch")
    plant.enroll(machine)


def test_one_key_has_one_identifier_whatever_its_certificate_looks_like(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    plant.enroll(machine)
    before = plant.counts()
    renewed = Machine(**{**vars(machine), "ek_certificate": plant.maker.endorse(machine.ek)})
    assert plant.enroll(renewed.with_new_ak(new_key("rsa")))["device_id"] == machine.device_id
    assert plant.counts() == before
