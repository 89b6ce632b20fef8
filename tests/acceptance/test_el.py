"""Rows EL and PC-9 of the abuse cases, over HTTP: a log counts as far as it replays to what was quoted."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests import recorded
from tests.attester import Machine, Round, b64, jwk_of, new_key
from tests.deployment import Deployment, credential
from tests.tpm.eventlog.logs import IPL, LogMaker, secure_boot_log
from tpm.eventlog.events import EventType
from tpm.eventlog.replay import replay

ATTEST = "/v1/attestations"
GRANT = """
[[grant]]
agent = "billing"
formats = ["x509-svid"]
key = "any"
"""
SECURE_BOOT = (
    'name = "plant"\ndisclose = "findings"\n[boot]\nevent_log = "required"\nsecure_boot = true\n' + GRANT
)


def machine_of(deployment: Deployment, log: LogMaker) -> Machine:
    """An enrolled machine that measured this log."""
    values = dict.fromkeys(range(24), bytes(32)) | dict(replay(log.read()).banks["sha256"])
    return replace(deployment.machine(), pcrs=values)


def recorded_machine(deployment: Deployment) -> Machine:
    return replace(deployment.machine(), pcrs=recorded.registers())


def with_log(round_: Round, log: bytes, userspace: bytes | None = None) -> dict[str, Any]:
    more = {} if userspace is None else {"userspace_log": b64(userspace)}
    return {**round_.body(), "event_log": b64(log), **more}


def logged(round_: Round) -> dict[str, Any]:
    """The recorded machine's round with both of its logs."""
    return with_log(round_, recorded.EVENT_LOG, recorded.userspace_log())


def findings(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["code"], one["subject"]) for one in told["findings"]]


@pytest.fixture
def deployment(deployment: Deployment) -> Deployment:
    deployment.apply(SECURE_BOOT)
    return deployment


def test_a_challenge_asks_for_the_log_and_the_registers_that_the_policy_needs(deployment: Deployment) -> None:
    machine = deployment.machine()
    told = deployment.challenge(machine)
    assert (told["event_log"], told["ima_log"]) == (True, False)
    assert told["pcr_selection"] == [{"bank": "sha256", "pcrs": [0, 4, 7]}]


def test_a_recorded_boot_is_accepted_by_its_facts_and_a_log_that_is_missing_is_not(
    deployment: Deployment,
) -> None:
    machine = recorded_machine(deployment)
    told = deployment.problem(
        deployment.round(machine).body(), 403, "evidence_incomplete", cause="log_missing"
    )
    assert findings(told) == [("log_missing", "event_log")]
    deployment.expect(200, ATTEST, logged(deployment.round(machine)))


def dropped(log: LogMaker) -> None:
    del log.records[-3]


def added(log: LogMaker) -> None:
    log.add(4, IPL, b"one more")


def swapped(log: LogMaker) -> None:
    log.records[1], log.records[2] = log.records[2], log.records[1]


def moved(log: LogMaker) -> None:
    log.records[-3].register = 7


@pytest.mark.parametrize(
    ("change", "subjects"),
    [(dropped, {"pcr4"}), (added, {"pcr4"}), (swapped, {"pcr7"}), (moved, {"pcr4", "pcr7"})],
)
def test_el_1_a_log_that_does_not_replay_is_refused_at_its_registers(
    deployment: Deployment, change: Callable[[LogMaker], None], subjects: set[str]
) -> None:
    machine = machine_of(deployment, secure_boot_log())
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    deployment.expect(
        200, ATTEST, with_log(deployment.round(machine, credentials=wanted), secure_boot_log().write())
    )
    log = secure_boot_log()
    change(log)
    # What the TPM did not sign says nothing against the device: nothing of it ends.
    told = deployment.problem(
        with_log(deployment.round(machine.later()), log.write()),
        403,
        "evidence_incomplete",
        cause="log_replay",
    )
    assert {subject for code, subject in findings(told) if code == "log_replay"} == subjects
    assert deployment.live(machine) == 1


def test_el_1_a_register_that_the_log_leaves_out_is_refused(deployment: Deployment) -> None:
    machine = machine_of(deployment, secure_boot_log())
    log = secure_boot_log()
    log.records = [one for one in log.records if one.register != 7]
    told = deployment.problem(with_log(deployment.round(machine), log.write()), 403, "evidence_incomplete")
    assert ("log_replay", "pcr7") in findings(told)


def test_el_8_a_log_without_the_policys_bank_is_refused(deployment: Deployment) -> None:
    machine = machine_of(deployment, secure_boot_log())
    log = secure_boot_log(banks=("sha1",))
    told = deployment.problem(
        with_log(deployment.round(machine), log.write()), 403, "evidence_incomplete", cause="log_bank_missing"
    )
    assert findings(told) == [("log_bank_missing", "event_log")]
    deployment.expect(200, ATTEST, with_log(deployment.round(machine), secure_boot_log().write()))


def test_el_10_a_state_whose_data_was_changed_is_not_proven(deployment: Deployment) -> None:
    machine = machine_of(deployment, secure_boot_log(enabled=b"\0"))
    honest = secure_boot_log(enabled=b"\0")
    told = deployment.problem(
        with_log(deployment.round(machine), honest.write()), 403, "posture_rejected", cause="secure_boot_off"
    )
    (finding,) = told["findings"]
    assert (finding["subject"], finding["event"], finding["artefact"]) == ("pcr7", 2, "Secure Boot is off")
    lying = secure_boot_log(enabled=b"\0")
    lying.records[1].measured, lying.records[1].data = (
        lying.records[1].data,
        secure_boot_log().records[1].data,
    )
    told = deployment.problem(
        with_log(deployment.round(machine.later()), lying.write()), 403, "evidence_incomplete"
    )
    assert findings(told) == [("fact_unproven", "pcr7")]


def test_el_11_events_in_registers_that_no_policy_names_are_allowed_and_never_used(
    deployment: Deployment,
) -> None:
    log = secure_boot_log()
    for register in (8, 9, 11, 12, 13, 14):
        log.add(register, IPL, b"grub_cmd: insmod whatever")
    machine = machine_of(deployment, log)
    deployment.expect(200, ATTEST, with_log(deployment.round(machine), log.write()))
    # Not quoted, they may even be untrue.
    log.add(14, IPL, b"never measured")
    deployment.expect(200, ATTEST, with_log(deployment.round(machine.later()), log.write()))


def test_pc_9_the_old_log_of_another_boot_does_not_replay(deployment: Deployment) -> None:
    whole = secure_boot_log().add(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"", measured=b"a kernel")
    machine = machine_of(deployment, whole)
    short = secure_boot_log()
    told = deployment.problem(with_log(deployment.round(machine), short.write()), 403, "evidence_incomplete")
    assert findings(told) == [("log_replay", "pcr4")]
    deployment.expect(200, ATTEST, with_log(deployment.round(machine.later()), whole.write()))


def test_a_log_that_no_policy_needs_is_verified_all_the_same(deployment: Deployment) -> None:
    machine = machine_of(deployment, secure_boot_log())
    listed = f'[pcrs]\n7 = ["sha256:{machine.pcrs[7].hex()}"]'
    deployment.apply(
        SECURE_BOOT.replace("[boot]", listed).replace('event_log = "required"\nsecure_boot = true', "")
    )
    good = secure_boot_log()
    deployment.expect(200, ATTEST, with_log(deployment.round(machine), good.write()))
    deployment.expect(
        200, ATTEST, with_log(deployment.round(machine), secure_boot_log(banks=("sha1",)).write())
    )
    swapped(good)
    told = deployment.problem(with_log(deployment.round(machine), good.write()), 403, "evidence_incomplete")
    assert findings(told) == [("log_replay", "pcr7")]


# Components


def test_another_kernel_is_refused_at_its_event_and_ends_what_was_issued(deployment: Deployment) -> None:
    deployment.apply('name = "plant"\ndisclose = "findings"\n' + recorded.components() + GRANT)
    machine = recorded_machine(deployment)
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    deployment.expect(200, ATTEST, logged(deployment.round(machine, credentials=wanted)))
    other = ("ee" * 32, *recorded.kernel_digests()[1:])
    deployment.apply('name = "plant"\ndisclose = "findings"\n' + recorded.components(digests=other) + GRANT)
    told = deployment.problem(logged(deployment.round(machine.later())), 403, "posture_rejected", ends=1)
    assert findings(told) == [("component_missing", "kernel"), ("event_unexpected", "pcr4")]
    event = told["findings"][1]
    assert (event["event"], event["found"]) == (recorded.IMAGE, recorded.kernel_digests()[0])
    assert "BOOTX64.EFI" in event["artefact"]


def test_an_expired_variant_is_refused(deployment: Deployment) -> None:
    machine = recorded_machine(deployment)
    head = 'name = "plant"\ndisclose = "findings"\n'
    deployment.apply(head + recorded.components(until="2100-01-01T00:00:00Z") + GRANT)
    deployment.expect(200, ATTEST, logged(deployment.round(machine)))
    deployment.apply(head + recorded.components(until="2020-01-01T00:00:00Z") + GRANT)
    told = deployment.problem(logged(deployment.round(machine.later())), 403, "posture_rejected")
    assert findings(told) == [("component_expired", "kernel")]


def test_without_systemds_log_its_registers_do_not_replay(deployment: Deployment) -> None:
    """Its phases begin at sysinit, without those of an initrd: nothing that is known without a log."""
    deployment.apply('name = "plant"\ndisclose = "findings"\n' + recorded.components() + GRANT)
    round_ = deployment.round(recorded_machine(deployment))
    told = deployment.problem(with_log(round_, recorded.EVENT_LOG), 403, "evidence_incomplete")
    assert findings(told) == [("log_replay", "pcr11")]


# A log that was seen before


def test_a_known_log_may_be_named_by_digest_and_by_the_device_that_sent_it_only(
    deployment: Deployment,
) -> None:
    machine, other = recorded_machine(deployment), recorded_machine(deployment)
    answer = deployment.expect(200, ATTEST, logged(deployment.round(machine)))
    digest = hashlib.sha256(recorded.EVENT_LOG).hexdigest()
    assert answer["known_event_log"] == digest
    named = {**logged(deployment.round(machine.later())), "event_log": {"sha256": digest}}
    assert deployment.expect(200, ATTEST, named)["known_event_log"] == digest
    deployment.restart()
    again = {**logged(deployment.round(machine.later(2000))), "event_log": {"sha256": digest}}
    deployment.expect(200, ATTEST, again)
    theirs = deployment.round(other)
    told = deployment.problem({**logged(theirs), "event_log": {"sha256": digest}}, 409, "log_needed")
    assert told["pointer"] == "/event_log"
    # The nonce is unspent: the same request, with the log itself, is answered.
    deployment.expect(200, ATTEST, logged(theirs))


def test_a_known_log_is_replayed_against_each_quote(deployment: Deployment) -> None:
    machine = recorded_machine(deployment)
    deployment.expect(200, ATTEST, logged(deployment.round(machine)))
    digest = hashlib.sha256(recorded.EVENT_LOG).hexdigest()
    moved_on = machine.later().extended(7, bytes(32))
    named = {**logged(deployment.round(moved_on)), "event_log": {"sha256": digest}}
    told = deployment.problem(named, 403, "evidence_incomplete", cause="log_replay")
    assert findings(told) == [("log_replay", "pcr7")]


def test_a_log_is_kept_with_an_accepted_attestation_only(deployment: Deployment) -> None:
    off = secure_boot_log(enabled=b"\0")
    machine = machine_of(deployment, off)
    deployment.problem(with_log(deployment.round(machine), off.write()), 403, "posture_rejected")
    assert deployment.count("device_logs") == 0
    accepted = machine_of(deployment, secure_boot_log())
    deployment.expect(200, ATTEST, with_log(deployment.round(accepted), secure_boot_log().write()))
    assert deployment.count("device_logs") == 1


# Why


def test_why_names_register_event_and_artefact_and_who_else_has_it(deployment: Deployment) -> None:
    other = ("ee" * 32, *recorded.kernel_digests()[1:])
    good = 'name = "plant"\ndisclose = "none"\n' + recorded.components() + GRANT
    deployment.apply(good)
    first, second, third = (recorded_machine(deployment) for _ in range(3))
    deployment.expect(200, ATTEST, logged(deployment.round(first)))
    deployment.apply(good.replace(recorded.kernel_digests()[0], other[0]))
    told = deployment.problem(logged(deployment.round(second)), 403, "posture_rejected")
    assert "findings" not in told
    (why,) = deployment.listed("device", "why", second.device_id)
    event = why["findings"][1]
    assert (event["code"], event["subject"], event["event"]) == ("event_unexpected", "pcr4", recorded.IMAGE)
    assert "BOOTX64.EFI" in event["artefact"]
    assert (event["elsewhere"]["accepted"], event["elsewhere"]["refused"]) == (1, 0)
    deployment.problem(logged(deployment.round(third)), 403, "posture_rejected")
    text = deployment.operate("device", "why", third.device_id).stdout
    for said in (
        f"event {recorded.IMAGE} (started \\EFI\\BOOT\\BOOTX64.EFI",
        f"sha256:{other[0]}",
        f"found sha256:{recorded.kernel_digests()[0]}",
        "1 refused and 1 accepted other devices have this value too, since 20",
        "attestd policy apply plant.toml",
    ):
        assert said in text
    assert "No other device" not in text
