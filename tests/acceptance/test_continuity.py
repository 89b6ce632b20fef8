"""Does evidence only go forward, and does what was issued end with the boot and the posture it rests on?"""

from dataclasses import replace
from typing import Any

import pytest

from attestd.clock import now_ms
from tests.attester import Machine, jwk_of, new_key
from tests.deployment import Deployment, credential, policy_for

ATTEST = "/v1/attestations"


def wanted() -> list[dict[str, object]]:
    return [credential("x509-svid", key=jwk_of(new_key("p256"))), credential("jwt-svid", audience=AUDIENCE)]


AUDIENCE = ["https://a.example.org"]


# Stale evidence changes nothing


def test_older_evidence_of_this_boot_is_stale_and_ends_nothing(plant: Deployment, gateway: Machine) -> None:
    plant.attest(gateway, credentials=wanted())
    before = plant.row(gateway)
    plant.problem(plant.round(gateway.later(-1)).body(), 409, "conflict", cause="stale_evidence")
    assert (plant.row(gateway), plant.live(gateway)) == (before, 2)
    # Two quotes may share a millisecond.
    plant.attest(gateway)


def test_evidence_older_than_what_was_refused_is_stale_too(plant: Deployment, gateway: Machine) -> None:
    plant.attest(gateway, credentials=wanted())
    held_back = plant.round(gateway.later(1000))
    tampered = gateway.extended(7, b"\1" * 32).later(2000)
    plant.problem(plant.round(tampered).body(), 403, "posture_rejected", ends=2)
    plant.problem(held_back.body(), 409, "conflict", cause="stale_evidence")
    assert plant.row(gateway).posture == "refused"
    plant.attest(gateway.later(3000))


def test_evidence_of_an_earlier_boot_that_was_held_back_is_stale(plant: Deployment, gateway: Machine) -> None:
    held_back = plant.round(gateway)
    rebooted = gateway.rebooted()
    plant.attest(rebooted, credentials=wanted())
    before = plant.row(gateway)
    plant.problem(held_back.body(), 409, "conflict", cause="stale_evidence")
    assert (plant.row(gateway), plant.live(gateway)) == (before, 2)


# Counters that go back


@pytest.mark.parametrize(
    "back",
    [{"reset_count": 6}, {"reset_count": 0}, {"reset_count": 6, "restart_count": 9}, {"restart_count": 1}],
    ids=["one reset less", "none", "more restarts", "one restart less"],
)
def test_lower_counters_under_a_fresh_nonce_are_always_refused(
    plant: Deployment, back: dict[str, Any]
) -> None:
    machine = replace(plant.machine(), restart_count=2)
    plant.attest(machine, credentials=wanted())
    cleared = replace(machine, clock=0, **back)
    told = plant.problem(plant.round(cleared).body(), 403, "posture_rejected", ends=2, cause="clock_rollback")
    assert [(f["code"], f["subject"]) for f in told["findings"]] == [("clock_rollback", "clock")]
    again = plant.round(cleared.later()).body()
    plant.problem(again, 403, "posture_rejected", cause="clock_rollback")
    plant.attest(machine.later())


def test_evidence_below_the_accepted_clock_of_its_boot_is_stale_whatever_was_judged_since(
    plant: Deployment, gateway: Machine
) -> None:
    plant.attest(gateway.later(5000))
    held_back = plant.round(gateway.later(4000))
    cleared = replace(gateway, reset_count=0, clock=0)
    plant.problem(plant.round(cleared).body(), 403, "posture_rejected", cause="clock_rollback")
    plant.problem(held_back.body(), 409, "conflict", cause="stale_evidence")
    plant.attest(gateway.later(6000))


def test_an_operator_lets_a_cleared_tpm_begin_anew(plant: Deployment, gateway: Machine) -> None:
    plant.attest(gateway, credentials=wanted())
    cleared = replace(gateway, reset_count=0, clock=10)
    plant.problem(plant.round(cleared).body(), 403, "posture_rejected", ends=2, cause="clock_rollback")
    held_back = [plant.round(machine) for machine in (cleared.later(), gateway.later())]
    plant.operate("device", "rebase", gateway.device_id)
    assert plant.row(gateway).baseline is None
    # What was asked for before the operator's word does not profit from it, whatever it counts.
    for round_ in held_back:
        plant.problem(round_.body(), 409, "conflict", cause="stale_evidence")
    plant.attest(cleared.later(2000))
    assert plant.row(gateway).reset_count == 0
    plant.problem(plant.round(cleared).body(), 409, "conflict", cause="stale_evidence")


# A new boot


@pytest.mark.parametrize("change", [{"reset_count": 8}, {"restart_count": 1}], ids=["reset", "restart"])
def test_an_accepted_new_boot_ends_what_rests_on_the_earlier(
    plant: Deployment, gateway: Machine, change: dict[str, Any]
) -> None:
    plant.attest(gateway, credentials=wanted())
    plant.attest(gateway.later(), credentials=wanted())
    assert plant.live(gateway) == 4
    plant.attest(replace(gateway.later(2000), **change), credentials=wanted())
    assert plant.live(gateway) == 2
    reasons = {row["revoked_reason"] for row in plant.rows("SELECT revoked_reason FROM credentials")}
    assert "boot_ended" in reasons


def test_only_an_accepted_quote_moves_the_baseline(plant: Deployment, gateway: Machine) -> None:
    plant.attest(gateway, boot_id="first")
    before = plant.row(gateway).baseline
    assert before is not None
    assert (before.reset_count, before.restart_count, before.clock) == (7, 0, gateway.clock)
    assert (before.boot_id, before.safe, before.firmware_version) == ("first", True, gateway.firmware_version)
    tampered = gateway.rebooted().extended(0, b"\1" * 32)
    plant.problem(plant.round(tampered, boot_id="second").body(), 403, "posture_rejected")
    asks = [credential("x509-svid", "nobody", key=jwk_of(new_key("p256")))]
    plant.problem(plant.round(gateway.rebooted().later(), credentials=asks).body(), 403, "not_entitled")
    assert plant.row(gateway).baseline == before
    unsafe = replace(gateway.rebooted().later(2000), safe=0, firmware_version=2**64 - 1, clock=2**64 - 1)
    plant.attest(unsafe, boot_id="third")
    after = plant.row(gateway).baseline
    assert after is not None
    assert (after.reset_count, after.boot_id, after.safe) == (8, "third", False)
    assert (after.firmware_version, after.clock) == (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize(("boot_id", "explained"), [("second", True), ("first", False), (None, False)])
@pytest.mark.parametrize("change", [{"reset_count": 8}, {"restart_count": 1}], ids=["reset", "restart"])
def test_a_policy_may_want_each_boot_explained(
    deployment: Deployment, change: dict[str, Any], boot_id: str | None, explained: bool
) -> None:
    machine = deployment.machine()
    deployment.apply(policy_for(machine, extra='[clock]\non_reset = "reject"\n'))
    deployment.attest(machine, boot_id="first", credentials=wanted())
    body = deployment.round(replace(machine.later(), **change), boot_id=boot_id).body()
    if explained:
        deployment.expect(200, ATTEST, body)
        return
    told = deployment.problem(body, 403, "posture_rejected", ends=2, cause="reset_unexplained")
    assert told["findings"] == [
        {"code": "reset_unexplained", "subject": "clock", "expected": ["a new boot id"], "found": boot_id}
    ]
    deployment.attest(replace(machine.later(2000), **change), boot_id="third")


def test_without_it_no_boot_needs_an_explanation(plant: Deployment, gateway: Machine) -> None:
    plant.attest(gateway, boot_id="first")
    plant.attest(gateway.rebooted(), boot_id="first")
    plant.attest(gateway.rebooted().rebooted())


# The posture


def test_a_refused_posture_ends_this_devices_credentials_and_no_others(
    plant: Deployment, gateway: Machine
) -> None:
    other = plant.machine()
    for machine in (gateway, other):
        plant.attest(machine, credentials=wanted())
    tampered = gateway.extended(7, b"\1" * 32).later()
    plant.problem(plant.round(tampered).body(), 403, "posture_rejected", ends=2)
    assert (plant.live(gateway), plant.live(other)) == (0, 2)
    assert (plant.row(gateway).posture, plant.row(other).posture) == ("refused", "accepted")
    plant.attest(gateway.later(2000), credentials=wanted())
    assert plant.row(gateway).posture == "accepted"


def test_the_posture_is_good_for_as_long_as_the_longest_credential(
    plant: Deployment, gateway: Machine
) -> None:
    now = now_ms()
    plant.ask(ATTEST, plant.round(gateway, now=now).body(), now=now)
    row = plant.row(gateway)
    assert (row.posture, row.posture_at) == ("accepted", now)
    assert row.posture_until == (now + 600_000) // 1000 * 1000


# What the policy says of the TPM's state: each its own finding, each with its twin


REBOOT, RESUME = {"reset_count": 8, "restart_count": 0}, {"restart_count": 1}
DECISIONS: dict[str, tuple[str, dict[str, Any], str, str | None]] = {
    "a reboot": ('on_reset = "reject"', REBOOT, "second", None),
    "an unexplained reset": ('on_reset = "reject"', REBOOT, "first", "reset_unexplained"),
    "a resume": ('on_resume = "reject"', RESUME, "first", "resume_rejected"),
    "a resume, as for resets": ('on_reset = "reject"', RESUME, "first", "reset_unexplained"),
    "a resume that may be": ('on_reset = "reject"\non_resume = "accept"', RESUME, "first", None),
    "a restart that a boot explains": ('on_resume = "reject"', RESUME, "second", None),
    "an unsafe clock": ('on_unsafe = "reject"', {"safe": 0}, "first", "clock_unsafe"),
    "an unsafe clock that may be": ('on_unsafe = "accept"', {"safe": 0}, "first", None),
    "other firmware": (
        'on_firmware_change = "reject"',
        {"firmware_version": 9},
        "first",
        "tpm_firmware_changed",
    ),
    "other firmware that may be": ('on_reset = "accept"', {"firmware_version": 9}, "first", None),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_the_policy_decides_about_each_change_of_the_tpms_state(deployment: Deployment, case: str) -> None:
    rule, change, boot_id, code = DECISIONS[case]
    machine = deployment.machine()
    deployment.apply(policy_for(machine, extra=f"[clock]\n{rule}\n"))
    deployment.attest(machine, boot_id="first")
    changed = replace(machine.later(), **change)
    if code is None:
        deployment.attest(changed, boot_id=boot_id)
        return
    body = deployment.round(changed, boot_id=boot_id).body()
    told = deployment.problem(body, 403, "posture_rejected", cause=code)
    assert [finding["code"] for finding in told["findings"]] == [code]


def test_other_firmware_is_accepted_once_the_operator_says_so(deployment: Deployment) -> None:
    machine = deployment.machine()
    deployment.apply(policy_for(machine, extra='[clock]\non_firmware_change = "reject"\n'))
    deployment.attest(machine)
    updated = replace(machine.rebooted(), firmware_version=9)
    told = deployment.problem(deployment.round(updated).body(), 403, "posture_rejected")
    (finding,) = told["findings"]
    assert (finding["expected"], finding["found"]) == ([f"{machine.firmware_version:016x}"], f"{9:016x}")
    deployment.operate("device", "rebase", machine.device_id)
    deployment.attest(updated.later())


@pytest.mark.parametrize(
    ("back", "words"),
    [
        ({"reset_count": 0, "clock": 5}, "the TPM was cleared"),
        ({"reset_count": 6, "clock": 5}, "a restored state"),
        ({"reset_count": 6}, "another TPM's state"),
    ],
)
def test_counters_that_went_back_are_told_with_what_it_looks_like(
    deployment: Deployment, machine: Machine, back: dict[str, Any], words: str
) -> None:
    deployment.attest(machine)
    body = deployment.round(replace(machine.later(), **back)).body()
    (finding,) = deployment.problem(body, 403, "posture_rejected", cause="clock_rollback")["findings"]
    assert words in finding["artefact"]
    assert words in " ".join(deployment.operate("device", "why", machine.device_id).stdout.split())
