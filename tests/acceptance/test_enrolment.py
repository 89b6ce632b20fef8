"""How does a machine become a device, and what stays when it changes its key?"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.clock import now_ms
from tests.attester import Machine, TestMaker, activation_body, b64, enrollment_body, jwk_of, new_key, sized
from tests.deployment import SERVER, Deployment, credential, policy_for

ENROLL, ACTIVATE, ATTEST = "/v1/enrollments", "/v1/activations", "/v1/attestations"
MINUTE = 60_000


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Deployment]:
    """A service that lets nobody in without an operator."""
    made = Deployment.create(tmp_path / "service", settings={"auto_admit": "false", "audit_unproven": "0"})
    made.apply(policy_for(Machine.create(None)))
    yield made
    assert made.audit_faults() == ()
    made.close()


# Admission


def test_a_genuine_tpm_waits_until_an_operator_approves_it(guarded: Deployment) -> None:
    machine = Machine.create(guarded.maker)
    assert guarded.enroll(machine)["state"] == "pending"
    guarded.problem(guarded.round(machine).body(), 403, "device_pending")
    guarded.operate("device", "approve", machine.device_id)
    assert guarded.attest(machine.later())["verdict"] == "accepted"
    assert guarded.row(machine).assurance == "ek_verified"


@pytest.mark.parametrize("certified", [True, False])
def test_a_tpm_for_which_nobody_vouches_is_refused_at_once(guarded: Deployment, certified: bool) -> None:
    stranger = Machine.create(TestMaker.create() if certified else None)
    cause = "ek_chain_untrusted" if certified else "ek_certificate_missing"
    guarded.problem(enrollment_body(stranger), 403, "enrollment_refused", ENROLL, cause=cause)
    guarded.enroll(Machine.create(guarded.maker))


@pytest.mark.parametrize("certified", [True, False])
def test_with_tofu_it_waits_instead(tmp_path: Path, certified: bool) -> None:
    lenient = Deployment.create(tmp_path / "service", settings={"tofu": "true"})
    stranger = Machine.create(TestMaker.create() if certified else None)
    assert lenient.enroll(stranger)["state"] == "pending"
    assert lenient.row(stranger).assurance == "first_use"
    assert lenient.enroll(Machine.create(lenient.maker))["state"] == "active"
    lenient.close()


@pytest.mark.parametrize("certified", [True, False])
def test_one_that_the_operator_listed_is_active(tmp_path: Path, certified: bool) -> None:
    stranger = Machine.create(TestMaker.create() if certified else None)
    settings = {"auto_admit": "false", "ek_allow": f'["{stranger.device_id}"]'}
    listing = Deployment.create(tmp_path / "service", settings=settings)
    assert listing.enroll(stranger)["state"] == "active"
    assert listing.row(stranger).assurance == "allow_listed"
    assert listing.enroll(Machine.create(listing.maker))["state"] == "pending"
    listing.close()


def test_one_that_was_imported_is_active_as_soon_as_it_enrols(guarded: Deployment) -> None:
    machine = Machine.create(None)
    inventory = guarded.directory / "inventory.jsonl"
    inventory.write_text(f'{{"device_id": "{machine.device_id}", "name": "press-7", "labels": {{}}}}\n')
    guarded.operate("device", "import", str(inventory))
    body = guarded.round(machine).body()
    guarded.problem(body, 403, "attestation_failed", cause="ak_not_activated")
    assert guarded.enroll(machine)["state"] == "active"
    assert (guarded.row(machine).name, guarded.row(machine).assurance) == ("press-7", "allow_listed")
    guarded.attest(machine)


def test_those_who_wait_are_bounded_in_number_and_age(tmp_path: Path) -> None:
    small = Deployment.create(tmp_path / "service", settings={"auto_admit": "false", "pending_max": "2"})
    first, second, third = (Machine.create(small.maker) for _ in range(3))
    small.enroll(first)
    small.enroll(second)
    begun = small.expect(201, ENROLL, enrollment_body(third))
    small.problem(activation_body(third, begun, SERVER), 429, "slow_down", ACTIVATE, cause="pending_full")
    small.operate("device", "approve", first.device_id)
    assert small.enroll(third)["state"] == "pending"
    week = 7 * 24 * 60 * MINUTE
    small.service.maintain(now_ms() + week + MINUTE)
    assert small.rows("SELECT device_id FROM devices") == [{"device_id": first.device_id}]
    small.close()


# The attempt


def test_an_enrolment_lives_five_minutes(deployment: Deployment) -> None:
    machine, now = Machine.create(deployment.maker), now_ms()
    proof = activation_body(machine, deployment.ask(ENROLL, enrollment_body(machine), now=now), SERVER)
    unknown = ("not_found", "enrollment_unknown")
    assert deployment.refusal(ACTIVATE, proof, now=now + 5 * MINUTE + 1) == unknown
    assert deployment.refusal(ACTIVATE, proof, now=now - 5_001) == unknown
    assert deployment.ask(ACTIVATE, proof, now=now + 5 * MINUTE)["state"] == "active"


def test_a_replica_whose_clock_is_behind_within_the_skew_goes_on_with_an_enrolment(
    deployment: Deployment,
) -> None:
    machine, now = Machine.create(deployment.maker), now_ms()
    proof = activation_body(machine, deployment.ask(ENROLL, enrollment_body(machine), now=now), SERVER)
    assert deployment.ask(ACTIVATE, proof, now=now - 5_000)["state"] == "active"


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-4],
        lambda token: token + "AAAA",
        lambda token: token + "=",
        lambda token: ("A" if token[0] != "A" else "B") + token[1:],
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: "AAAA",
        lambda token: "ＡＡＡＡ",
        lambda token: "=",
    ],
    ids=["cut", "longer", "padded", "changed", "line end", "space", "short", "wide letters", "padding alone"],
)
def test_an_unknown_enrolment_is_404_and_the_known_one_is_not(plant: Deployment, change: object) -> None:
    machine = Machine.create(plant.maker)
    begun = plant.expect(201, ENROLL, enrollment_body(machine))
    good = activation_body(machine, begun, SERVER)
    bad = good | {"enrollment": change(good["enrollment"])}  # type: ignore[operator]
    plant.problem(bad, 404, "not_found", ACTIVATE, cause="enrollment_unknown")
    plant.expect(201, ACTIVATE, good)


def test_an_enrolment_of_another_service_is_unknown_here(plant: Deployment, deployment: Deployment) -> None:
    machine = Machine.create(deployment.maker)
    begun = deployment.expect(201, ENROLL, enrollment_body(machine))
    proof = activation_body(machine, begun, SERVER)
    plant.problem(proof, 404, "not_found", ACTIVATE, cause="enrollment_unknown")
    deployment.expect(201, ACTIVATE, proof)


def test_beginning_writes_nothing(plant: Deployment) -> None:
    before, length = plant.kept(), plant.audit_length()
    plant.expect(201, ENROLL, enrollment_body(Machine.create(plant.maker)))
    assert (plant.kept(), plant.audit_length()) == (before, length)


def test_a_clock_that_went_back_gives_no_spent_enrolment_a_second_life(deployment: Deployment) -> None:
    machine, now = Machine.create(deployment.maker), now_ms()
    first = activation_body(machine, deployment.ask(ENROLL, enrollment_body(machine), now=now), SERVER)
    deployment.ask(ACTIVATE, first, now=now)
    deployment.enroll(machine.with_new_ak())
    deployment.service.maintain(now + 6 * MINUTE)
    assert deployment.refusal(ACTIVATE, first, now=now) == ("unavailable", "clock_went_back")
    # It is remembered for longer than any skew that is let pass.
    assert deployment.count("spent_enrollments") == 2
    deployment.service.maintain(now + 11 * MINUTE)
    assert deployment.count("spent_enrollments") == 0


# Whose key


def test_the_key_of_one_device_is_not_anothers(plant: Deployment, gateway: Machine) -> None:
    thief = replace(Machine.create(plant.maker), ak=gateway.ak, ak_public=gateway.ak_public)
    begun = plant.expect(201, ENROLL, enrollment_body(thief))
    plant.problem(activation_body(thief, begun, SERVER), 409, "identity_bound", ACTIVATE, cause="ak_bound")
    plant.enroll(thief.with_new_ak())
    plant.attest(gateway)


def test_a_new_key_keeps_all_that_the_device_is(plant: Deployment, gateway: Machine) -> None:
    name = f"press-{gateway.device_id[:8]}"
    plant.operate("device", "rename", gateway.device_id, name)
    plant.operate("device", "label", name, "line=3")
    plant.attest(gateway, boot_id="boot-1")
    before = plant.row(gateway)
    rotated = gateway.with_new_ak()
    plant.enroll(rotated)
    after = plant.row(gateway)
    assert after == replace(
        before,
        ak_public=sized(rotated.ak_public),
        ak_name=after.ak_name,
        updated_at=after.updated_at,
        revision=before.revision + 1,
    )
    assert after.ak_name != before.ak_name
    # The old key ends at once.
    plant.problem(plant.round(gateway.later()).body(), 403, "attestation_failed", cause="ak_not_of_device")
    # The clock goes on where it was: what is older is stale still.
    plant.problem(plant.round(rotated.later(-1)).body(), 409, "conflict", cause="stale_evidence")
    plant.attest(rotated.later())


def test_credentials_outlive_a_rotation_of_the_attestation_key(plant: Deployment, gateway: Machine) -> None:
    plant.attest(gateway, credentials=[credential("x509-svid", key=jwk_of(new_key("p256")))])
    plant.enroll(gateway.with_new_ak())
    assert plant.live(gateway) == 1


# Who vouches


def test_a_withdrawn_root_stops_the_next_issue_and_an_imported_one_allows_it(
    deployment: Deployment, machine: Machine
) -> None:
    deployment.attest(machine)
    root = deployment.directory / "ek-roots" / "maker.pem"
    root.unlink()
    # The service looks at the trust store again after a second.
    later = now_ms() + 2000
    body = deployment.round(machine.later(), now=later).body()
    assert deployment.refusal(ATTEST, body, now=later) == ("enrollment_refused", "ek_root_withdrawn")
    root.write_bytes(deployment.maker.pem)
    body = deployment.round(machine.later(), now=later + 2000).body()
    assert deployment.ask(ATTEST, body, now=later + 2000)["verdict"] == "accepted"


def test_what_rests_on_a_withdrawn_root_ends_with_it(deployment: Deployment, machine: Machine) -> None:
    trusted = deployment.directory / "other.pem"
    maker = TestMaker.create("Another Maker")
    trusted.write_bytes(maker.pem)
    deployment.operate("ek-roots", "import", str(trusted), "--yes")
    deployment.restart()
    other = Machine.create(maker)
    deployment.enroll(other)
    for one in (machine, other):
        deployment.attest(one, credentials=[credential("x509-svid", key=jwk_of(new_key("p256")))])
    deployment.operate("ek-roots", "remove", "maker.pem")
    assert (deployment.live(machine), deployment.live(other)) == (0, 1)
    deployment.restart()
    refused = deployment.round(machine.later()).body()
    deployment.problem(refused, 403, "enrollment_refused", cause="ek_root_withdrawn")
    deployment.attest(other.later())
    told = [deployment.operate("device", "why", one.device_id).stdout for one in (machine, other)]
    assert ["trusted no more; import it again" in text for text in told] == [True, False]


@pytest.mark.parametrize("with_certificate", [True, False])
def test_enrolling_again_does_not_shed_a_withdrawn_root(
    deployment: Deployment, machine: Machine, with_certificate: bool
) -> None:
    deployment.attest(machine)
    before = deployment.row(machine)
    (deployment.directory / "ek-roots" / "maker.pem").unlink()
    deployment.restart()
    again = machine.with_new_ak().later()
    if not with_certificate:
        again = replace(again, ek_certificate=None)
    deployment.enroll(again)
    after = deployment.row(machine)
    assert (after.root_sha256, after.assurance) == (before.root_sha256, "ek_verified")
    assert after.ek_certificate == before.ek_certificate
    deployment.problem(
        deployment.round(again).body(), 403, "enrollment_refused", cause="ek_root_withdrawn"
    )
    (deployment.directory / "ek-roots" / "maker.pem").write_bytes(deployment.maker.pem)
    deployment.restart()
    deployment.attest(again.later())


def test_an_operators_list_outlasts_a_withdrawn_root_and_says_so(tmp_path: Path) -> None:
    maker = TestMaker.create()
    machine = Machine.create(maker)
    settings = {"ek_allow": f'["{machine.device_id}"]'}
    listing = Deployment.create(tmp_path / "service", settings=settings, roots=[maker.pem])
    listing.apply(policy_for(machine))
    listing.enroll(machine)
    wanted = [credential("wit-svid", key=jwk_of(new_key("p256")))]

    def assurance(answer: dict[str, Any]) -> str:
        claims = jwt.decode(answer["credentials"][0]["token"], options={"verify_signature": False})
        return str(claims["urn:attestd:attestation"]["assurance"])

    assert assurance(listing.attest(machine, credentials=wanted)) == "ek_verified"
    (listing.directory / "ek-roots" / "root0.crt").unlink()
    listing.restart()
    assert assurance(listing.attest(machine.later(), credentials=wanted)) == "allow_listed"
    first, second = listing.rows("SELECT root_sha256 FROM credentials ORDER BY issued_at")
    assert first["root_sha256"] is not None
    assert second["root_sha256"] is None
    listing.close()


def test_a_tpm_that_becomes_known_to_its_maker_is_no_first_use_any_more(tmp_path: Path) -> None:
    maker = TestMaker.create()
    lenient = Deployment.create(tmp_path / "service", settings={"tofu": "true"})
    machine = Machine.create(maker)
    lenient.enroll(machine)
    lenient.operate("device", "approve", machine.device_id)
    (lenient.directory / "ek-roots" / "late.pem").write_bytes(maker.pem)
    lenient.restart()
    lenient.enroll(machine.with_new_ak())
    assert (lenient.row(machine).assurance, lenient.row(machine).manufacturer) == ("ek_verified", "IFX")
    lenient.close()


def test_a_chain_without_a_certificate_is_malformed(plant: Deployment) -> None:
    machine = Machine.create(plant.maker)
    root = plant.maker.certificate.public_bytes(Encoding.DER)
    body = enrollment_body(machine, ek_certificate=None, ek_chain=[b64(root)])
    assert plant.problem(body, 400, "malformed", ENROLL)["pointer"] == "/ek_chain"
    plant.expect(201, ENROLL, enrollment_body(machine, ek_chain=[b64(root)]))
