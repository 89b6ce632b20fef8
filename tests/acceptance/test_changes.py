"""What if something changes while an attestation is judged? Nothing leaves that would not be given now."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from attestd.clock import now_ms
from attestd.grant import entitle
from attestd.protocol import AttestationBody, read
from attestd.round.case import Case
from attestd.round.claim import read_claim
from attestd.round.intent import open_case
from attestd.round.judge import Judgement, judge
from attestd.round.logs import read_logs
from attestd.round.mint import Minted, mint
from attestd.round.outcome import issue_case
from attestd.round.prove import prove
from attestd.wire import Problem
from tests.attester import Machine, jwk_of, new_key
from tests.deployment import Deployment, credential, policy_for, start

ATTEST = "/v1/attestations"


@dataclass
class Halfway:
    """One attestation whose nonce is spent and whose credentials are signed, and not yet recorded."""

    deployment: Deployment
    machine: Machine
    case: Case
    judgement: Judgement
    minted: Minted

    def finish(self, *, now: int | None = None) -> tuple[int, ...]:
        """The second transaction."""
        when = now_ms() if now is None else now
        return issue_case(self.deployment.service, self.case, self.judgement, self.minted, now=when)


def halfway(deployment: Deployment, machine: Machine) -> Halfway:
    """The walk of `attestd/attest.py` up to its last step."""
    service, now = deployment.service, now_ms()
    asked: dict[str, Any] = {
        "credentials": [credential("x509-svid", key=jwk_of(new_key("p256")))],
        "sealed_keys": [{"name": "disk", "parent": "ek"}],
    }
    claim = read_claim(read(AttestationBody, deployment.round(machine, **asked).body()))
    proven = prove(service, claim)
    logs = read_logs(service, claim, proven)
    case = open_case(service, claim, proven, logs, now=now, request_id="r-1")
    judgement = judge(case, service.logs, now=now)
    judgement.require_acceptance()
    entitlement = entitle(
        judgement.policy.document,
        claim,
        case.device,
        keys=judgement.keys,
        trust_domain=service.config.trust_domain,
        ours=service.keyring.at(now),
    )
    return Halfway(deployment, machine, case, judgement, mint(service, case, judgement, entitlement, now=now))


def another_policy(here: Halfway) -> None:
    here.deployment.apply(policy_for(here.machine, extra="# another\n"))


def a_policy_more(here: Halfway) -> None:
    text = policy_for(here.machine, name="special", extra='[match]\nlabels = { site = ["x"] }\n')
    here.deployment.apply(text, "special.toml")


def another_key(here: Halfway) -> None:
    here.deployment.enroll(here.machine.with_new_ak())


def newer_evidence(here: Halfway) -> None:
    here.deployment.attest(here.machine.later())


def a_reboot(here: Halfway) -> None:
    here.deployment.attest(here.machine.rebooted())


def a_refusal(here: Halfway) -> None:
    tampered = here.machine.extended(7, b"\1" * 32).later()
    here.deployment.problem(here.deployment.round(tampered).body(), 403, "posture_rejected")


def operating(*words: str) -> Callable[[Halfway], None]:
    def change(here: Halfway) -> None:
        here.deployment.operate("device", words[0], here.machine.device_id, *words[1:])

    return change


CHANGES: dict[str, Callable[[Halfway], None]] = {
    "banned": operating("ban"),
    "retired": operating("retire"),
    "labelled": operating("label", "site=plant-2"),
    "renamed": operating("rename", "press-9"),
    "another policy": another_policy,
    "a policy more": a_policy_more,
    "another attestation key": another_key,
    "newer evidence": newer_evidence,
    "a reboot": a_reboot,
    "a refusal": a_refusal,
}


@pytest.fixture
def ready(deployment: Deployment, machine: Machine) -> Halfway:
    # Once accepted before, so that the clock's baseline is there.
    deployment.attest(machine)
    return halfway(deployment, machine.later(10))


def test_when_nothing_has_changed_it_is_recorded_and_handed_out(ready: Halfway) -> None:
    assert ready.finish() == (1,)
    assert ready.deployment.counts() == {"credentials": 1, "sealed_keys": 1, "devices": 1}
    assert ready.deployment.count("attestations", "outcome = 'issued'") == 2


@pytest.mark.parametrize("change", CHANGES)
def test_when_something_has_changed_all_of_it_is_dropped(ready: Halfway, change: str) -> None:
    CHANGES[change](ready)
    before = ready.deployment.counts()
    with pytest.raises(Problem) as refused:
        ready.finish()
    assert (refused.value.code, refused.value.cause) == ("conflict", "changed_meanwhile")
    assert refused.value.recorded
    assert ready.deployment.counts() == before
    (record,) = ready.deployment.audit(request_id="r-1")
    assert (record["decision"], record["code"]) == ("refused", "conflict")
    (row,) = ready.deployment.rows(
        "SELECT outcome, code FROM attestations WHERE attestation_id = ?", ready.case.attestation_id
    )
    assert row == {"outcome": "conflict", "code": "conflict"}


def test_a_signing_key_that_was_retired_meanwhile_signs_nothing_more(ready: Halfway) -> None:
    deployment = ready.deployment
    (old,) = [key["kid"] for key in deployment.listed("keys", "list") if key["use"] == "x509"]
    deployment.operate("keys", "add", "--use", "x509")
    (new,) = [k["kid"] for k in deployment.listed("keys", "list") if k["use"] == "x509" and k["kid"] != old]
    deployment.operate("keys", "activate", new, "--now")
    deployment.operate("keys", "retire", old)
    with pytest.raises(Problem, match="signing key changed"):
        ready.finish()
    assert deployment.counts()["credentials"] == 0
    deployment.restart()
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    deployment.attest(ready.machine.later(), credentials=wanted)


def test_two_rounds_at_once_may_both_end_well(ready: Halfway) -> None:
    other = halfway(ready.deployment, ready.machine.later(0))
    assert ready.finish() == (1,)
    assert other.finish() == (2,)


# A process that dies between the two transactions


def test_an_intent_without_an_end_is_closed_as_abandoned(ready: Halfway) -> None:
    deployment, now = ready.deployment, now_ms()
    deployment.service.maintain(now + 59_000)
    attestation = "SELECT outcome, finished_at FROM attestations WHERE attestation_id = ?"
    (row,) = deployment.rows(attestation, ready.case.attestation_id)
    assert row == {"outcome": "open", "finished_at": None}
    later = now + 62_000
    assert deployment.service.maintain(later).abandoned == 1
    assert deployment.rows(attestation, ready.case.attestation_id) == [
        {"outcome": "abandoned", "finished_at": later}
    ]
    (record,) = deployment.audit(device_id=ready.machine.device_id, cause="abandoned")
    assert (record["decision"], record["code"]) == ("refused", "unavailable")
    assert record["evidence_sha256"] == ready.case.claim.evidence_digest
    assert deployment.service.maintain(later).abandoned == 0
    # Who comes back from the dead hands nothing out.
    with pytest.raises(Problem, match="changed while it was judged"):
        ready.finish(now=later)
    assert deployment.counts()["credentials"] == 0


def test_after_a_crash_the_device_begins_anew(ready: Halfway) -> None:
    ready.deployment.restart()
    assert ready.deployment.counts()["credentials"] == 0
    answer = ready.deployment.attest(ready.machine.later(), sealed_keys=[{"name": "disk", "parent": "ek"}])
    assert answer["sealed_keys"][0]["version"] == 1


# Between the proof and the first transaction


def test_a_key_that_was_replaced_after_it_signed_is_the_devices_no_more(
    deployment: Deployment, machine: Machine
) -> None:
    service, now = deployment.service, now_ms()
    claim = read_claim(read(AttestationBody, deployment.round(machine).body()))
    proven = prove(service, claim)
    logs = read_logs(service, claim, proven)
    deployment.enroll(machine.with_new_ak())
    with pytest.raises(Problem) as refused:
        open_case(service, claim, proven, logs, now=now, request_id="r-2")
    assert (refused.value.code, refused.value.cause) == ("attestation_failed", "ak_mismatch")


# Policies in force


def test_a_policy_is_in_force_from_the_next_request_on(deployment: Deployment, machine: Machine) -> None:
    first = deployment.attest(machine)
    changed = machine.extended(7, b"\1" * 32)
    deployment.problem(deployment.round(changed.later()).body(), 403, "posture_rejected", policy="plant@1")
    waiting = deployment.round(changed.later(2000))
    deployment.apply(policy_for(changed))
    answer = deployment.expect(200, ATTEST, waiting.body())
    assert (first["policy"]["version"], answer["policy"]["version"]) == (1, 2)
    assert first["policy"]["digest"] != answer["policy"]["digest"]
    as_before = deployment.round(machine.later(3000)).body()
    deployment.problem(as_before, 403, "posture_rejected", policy="plant@2")
    deployment.operate("policy", "rollback", "plant", "1")
    assert deployment.attest(machine.later(4000))["policy"]["version"] == 3


def test_a_replica_follows_too(deployment: Deployment, machine: Machine) -> None:
    service, client = start(deployment.directory)
    replica = Deployment(deployment.directory, deployment.maker, service, client)
    replica.attest(machine)
    deployment.apply(policy_for(machine.extended(7, b"\1" * 32)))
    replica.problem(replica.round(machine.later()).body(), 403, "posture_rejected", policy="plant@2")
    # A nonce of the one is good at the other, and spent at both.
    body = deployment.round(machine.extended(7, b"\1" * 32).later(2000)).body()
    replica.expect(200, ATTEST, body)
    deployment.problem(body, 409, "nonce_spent")
    service.close()


def test_a_policy_that_would_tie_is_not_applied(deployment: Deployment, machine: Machine) -> None:
    twin = deployment.directory / "twin.toml"
    twin.write_text(policy_for(machine, name="twin"))
    assert "alike" in deployment.operate("policy", "apply", str(twin), status=1).stderr
    assert deployment.attest(machine)["policy"]["name"] == "plant"


def test_the_most_specific_policy_decides_by_what_is_proven(deployment: Deployment) -> None:
    machine, other = deployment.machine(), Machine.create(None)
    other = replace(other, ek_certificate=deployment.maker.endorse(other.ek, manufacturer="id:4E544300"))
    deployment.enroll(other)
    deployment.apply(policy_for(machine))
    nuvoton = policy_for(machine, name="nuvoton", extra='[match]\nmanufacturers = ["NTC"]\n')
    deployment.apply(nuvoton, "nuvoton.toml")
    assert deployment.attest(machine)["policy"]["name"] == "plant"
    assert deployment.attest(other)["policy"]["name"] == "nuvoton"
    # What a device says of itself chooses nothing.
    deployment.enroll(replace(machine.with_new_ak(), clock=0))
    assert deployment.row(machine).manufacturer == "IFX"
