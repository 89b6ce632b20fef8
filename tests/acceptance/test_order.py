"""Of two things that are wrong, is the earlier told, and does each step leave what it should?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import pytest

from attestd.clock import now_ms
from attestd.wire import Problem
from tests.attester import Machine, Round, b64, jwk_of, new_key
from tests.deployment import Deployment, credential, policy_for

ATTEST = "/v1/attestations"
EXPIRED_MS = 61_000


@dataclass
class Scene:
    """One attestation in the making, and what is wrong with it."""

    deployment: Deployment
    machine: Machine
    now: int
    round: Round = field(init=False)
    body_changes: dict[str, Any] = field(default_factory=dict)
    wait: int = 0

    def __post_init__(self) -> None:
        wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
        self.round = self.deployment.round(self.machine, now=self.now, credentials=wanted)

    def code(self) -> str:
        """The code of the refusal, or "accepted"."""
        try:
            self.deployment.ask(ATTEST, self.round.body() | self.body_changes, now=self.now + self.wait)
        except Problem as problem:
            return problem.code
        return "accepted"


def log_sent(scene: Scene) -> None:
    scene.body_changes["event_log"] = b64(b"log")


def signed_by_another(scene: Scene) -> None:
    other = scene.machine.with_new_ak()
    quoted = scene.round.quoting
    scene.round = replace(
        scene.round, quoting=lambda m, d, r: quoted(replace(m, ak=other.ak, ak_public=other.ak_public), d, r)
    )


def too_late(scene: Scene) -> None:
    scene.wait = EXPIRED_MS


def spent(scene: Scene) -> None:
    """The same nonce has served before, for evidence from the start of this boot."""
    first = replace(scene.round, machine=replace(scene.machine, clock=0))
    scene.deployment.ask(ATTEST, first.body(), now=scene.now)


def banned(scene: Scene) -> None:
    scene.deployment.operate("device", "ban", scene.machine.device_id)


def value_damaged(scene: Scene) -> None:
    scene.body_changes["pcrs"] = {"sha256": {"0": "00" * 32, "7": "00" * 32}}


def overtaken(scene: Scene) -> None:
    """Younger evidence of this boot was judged meanwhile."""
    younger = scene.deployment.round(scene.machine.later(10_000), now=scene.now)
    scene.deployment.ask(ATTEST, younger.body(), now=scene.now)


def booted_otherwise(scene: Scene) -> None:
    changed = scene.machine.extended(7, b"\1" * 32)
    scene.round = replace(scene.round, machine=changed)


def asks_too_much(scene: Scene) -> None:
    more = credential("wit-svid", "nobody", key=jwk_of(new_key("p256")))
    wanted = [*scene.round.request["credentials"], more]
    scene.round = replace(scene.round, request=scene.round.request | {"credentials": wanted})


FAULTS: list[tuple[Callable[[Scene], None], str]] = [
    (signed_by_another, "attestation_failed"),
    (too_late, "nonce_expired"),
    (log_sent, "malformed"),
    (spent, "nonce_spent"),
    (banned, "device_banned"),
    (value_damaged, "evidence_incomplete"),
    (overtaken, "conflict"),
    (booted_otherwise, "posture_rejected"),
    (asks_too_much, "not_entitled"),
]
"""In the order of the protocol."""

# These happen on the way to the service, and need it to accept what they send: the nonce is spent by a round
# without a fault, and who is banned can do nothing any more.
WHEN = {spent: 0, banned: 2}


@pytest.fixture
def scene(plant: Deployment) -> Scene:
    return Scene(plant, plant.machine(), now_ms())


def commit(scene: Scene, *faults: Callable[[Scene], None]) -> None:
    for fault in sorted(faults, key=lambda fault: WHEN.get(fault, 1)):
        fault(scene)


def test_without_a_fault_it_is_accepted(scene: Scene) -> None:
    assert scene.code() == "accepted"


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=lambda it: getattr(it, "__name__", it))
def test_each_fault_alone_has_its_answer(scene: Scene, fault: Callable[[Scene], None], code: str) -> None:
    commit(scene, fault)
    assert scene.code() == code


@pytest.mark.parametrize(
    ("earlier", "later"), list(combinations(FAULTS, 2)), ids=lambda fault: fault[0].__name__
)
def test_of_two_faults_the_earlier_is_told(scene: Scene, earlier: Any, later: Any) -> None:
    commit(scene, earlier[0], later[0])
    assert scene.code() == earlier[1]


def test_with_everything_wrong_the_first_is_told(plant: Deployment) -> None:
    for first in range(len(FAULTS)):
        scene = Scene(plant, plant.machine(), now_ms())
        commit(scene, *(fault for fault, _ in FAULTS[first:]))
        assert scene.code() == FAULTS[first][1]


# What each refusal leaves: the nonce spent or not, the posture, what was issued before.

SPENDS = {"device_banned", "evidence_incomplete", "conflict", "posture_rejected", "not_entitled"}


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=lambda it: getattr(it, "__name__", it))
def test_only_a_refused_posture_ends_what_was_issued(plant: Deployment, fault: Any, code: str) -> None:
    machine = plant.machine()
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    plant.attest(replace(machine, clock=0), credentials=wanted)
    scene = Scene(plant, machine, now_ms())
    commit(scene, fault)
    live, spent_before = plant.live(machine), plant.count("spent_nonces")
    assert scene.code() == code
    assert plant.count("spent_nonces") == spent_before + (code in SPENDS)
    assert plant.live(machine) == (0 if code == "posture_rejected" else live)
    expected = "refused" if code == "posture_rejected" else "accepted"
    assert plant.row(machine).posture == expected


def test_what_the_tpm_did_not_sign_never_harms_the_device(plant: Deployment) -> None:
    """Everything beside the quote can be changed on the way: the worst that comes of it is a refusal."""
    machine = plant.machine()
    plant.attest(machine, credentials=[credential("x509-svid", key=jwk_of(new_key("p256")))])
    before = plant.row(machine)
    for changes in (
        {"pcrs": {"sha256": {"0": "00" * 32, "7": "00" * 32}}},
        {"pcrs": {"sha256": {}}},
        {"proofs": [b64(b"x")], "certified": []},
        {"event_log": b64(b"x")},
        {"quote": {"attest": b64(b"x"), "signature": b64(b"x")}},
    ):
        status, _ = plant.post(ATTEST, plant.round(machine.later()).body() | changes)
        assert status in (400, 403)
    assert plant.row(machine) == before
    assert plant.live(machine) == 1
    plant.attest(machine.later())


def test_no_policy_comes_behind_stale_evidence_and_before_entitlement(deployment: Deployment) -> None:
    machine = deployment.machine()
    elsewhere = '[match]\nlabels = { site = ["elsewhere"] }\n'
    deployment.apply(policy_for(machine, extra=elsewhere))
    asked = [credential("x509-svid", "nobody", key=jwk_of(new_key("p256")))]
    told = deployment.problem(
        deployment.round(machine, credentials=asked).body(), 403, "no_policy", cause="policy_none"
    )
    assert told["findings"] == [
        {"code": "no_policy", "subject": "policy", "expected": ["one"], "found": "none"}
    ]
    deployment.problem(deployment.round(machine.later(-1)).body(), 409, "conflict", cause="stale_evidence")
    deployment.operate("device", "label", machine.device_id, "site=elsewhere")
    deployment.problem(deployment.round(machine.later(), credentials=asked).body(), 403, "not_entitled")
    deployment.attest(machine.later(2000))
