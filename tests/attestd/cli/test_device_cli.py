"""An operator decides about devices: each change is checked, durable, and on the device's record."""

import pytest

from attestd.store import attestations, credentials, devices
from attestd.store.attestations import Outcome
from attestd.store.credentials import Issued
from attestd.store.devices import Baseline, Mark, Posture, State
from attestd.store.engine import Transaction
from tests.attestd.cli.operator import DEVICE, NOW, OTHER, Operator
from tests.attestd.policy.documents import GOOD_7, SMALL

EVIL = "ee" * 32
FUTURE = 4_000_000_000_000


def issue(operator: Operator, credential_id: str = "c1") -> None:
    issued = Issued(
        credential_id=credential_id,
        attestation_id="a1",
        device_id=DEVICE,
        agent="telemetry",
        format="x509-svid",
        spiffe_id="spiffe://example.org/agent/telemetry/1",
        key_thumbprint=None,
        issued_at=NOW,
        expires_at=FUTURE,
        reset_count=1,
        restart_count=0,
        policy_name="small",
        policy_version=1,
        root_sha256=None,
    )
    operator.store().write(lambda tx: credentials.insert_all(tx, [issued]))


def live(operator: Operator) -> int:
    store = operator.store()
    return len(store.read(lambda tx: credentials.list_for_device(tx, DEVICE, live_at=NOW)))


def refuse(operator: Operator, findings: list[dict[str, object]], code: str = "posture_rejected") -> None:
    """The device was refused by small@3."""

    def work(tx: Transaction) -> None:
        attestations.open_intent(tx, "a1", device_id=DEVICE, request_sha256="00" * 32, now=NOW)
        ended = Outcome(
            outcome="refused",
            code=code,
            findings=findings,
            policy_name="small",
            policy_version=3,
            policy_digest="d" * 64,
        )
        attestations.finish(tx, "a1", ended, NOW)

    operator.store().write(work)


def accept(operator: Operator, now: int) -> None:
    """The device has attested well."""
    mark = Mark(judged_reset=4, judged_restart=0, judged_clock=5, judged_at=now)
    posture = Posture(posture="accepted", posture_attestation="a2", posture_at=now, posture_until=FUTURE)
    clock = Baseline(reset_count=4, restart_count=0, clock=5, firmware_version=1, boot_id="b", safe=True)
    operator.store().write(
        lambda tx: devices.record_judged(tx, DEVICE, mark, now=now, posture=posture, baseline=clock)
    )


def test_list_shows_the_devices_in_a_state_with_a_label(operator: Operator) -> None:
    operator.add(labels={"site": "plant-1", "role": "edge"})
    operator.add(OTHER, name="gw-2", state="pending", labels={"site": "plant-1"})
    names = lambda *words: [each["name"] for each in operator.objects("device", "list", *words)]  # noqa: E731
    assert names() == ["gw-1", "gw-2"]
    assert names("--state", "pending") == ["gw-2"]
    assert names("--label", "site=plant-1", "--label", "role=edge") == ["gw-1"]
    assert names("--label", "site=plant") == []
    assert "gw-2" in operator.done("device", "list")
    operator.refused("device", "list", "--state", "lost", status=2)
    operator.refused("device", "list", "--label", "site", status=2)


def test_a_device_is_shown_by_identifier_and_by_name_and_by_no_other(operator: Operator) -> None:
    operator.add(hostname="edge\x07\x9b31m", manufacturer="IFX")
    operator.done("policy", "apply", operator.write("a.toml", SMALL))
    issue(operator)
    by_name, by_id = operator.objects("device", "show", "gw-1"), operator.objects("device", "show", DEVICE)
    assert by_name == by_id
    assert (by_id[0]["state"], by_id[0]["policy"], by_id[0]["live_credentials"]) == ("active", "small@1", 1)
    text = operator.done("device", "show", "gw-1")
    assert "small@1" in text
    assert "edge??31m" in text
    assert "attestd device list" in operator.refused("device", "show", "gw-3")
    operator.refused("device", "show", DEVICE[:-1])


MOVES: list[tuple[str, State, State | None]] = [
    ("approve", "pending", "active"),
    ("approve", "banned", None),
    ("approve", "retired", None),
    ("ban", "pending", "banned"),
    ("ban", "active", "banned"),
    ("ban", "retired", "banned"),
    ("unban", "banned", "active"),
    ("unban", "retired", "active"),
    ("unban", "pending", None),
    ("retire", "active", "retired"),
    ("retire", "pending", "retired"),
    ("retire", "banned", None),
]


@pytest.mark.parametrize(("verb", "before", "after"), MOVES)
def test_a_state_changes_only_along_its_ways_and_on_the_record(
    operator: Operator, verb: str, before: State, after: State | None
) -> None:
    operator.add(state=before)
    if after is None:
        assert f"gw-1 is {before}" in operator.refused("device", verb, "gw-1")
        assert operator.device().state == before
        return
    assert f"gw-1 is {after}" in operator.done("device", verb, "gw-1")
    assert operator.device().state == after
    record = operator.last_record()
    assert (record["chain"], record["device_id"]) == (DEVICE, DEVICE)
    assert (record["details"]["verb"], record["details"]["was"]) == (f"device {verb}", before)
    before_again = operator.admin_records()
    assert "already" in operator.done("device", verb, "gw-1")
    assert operator.admin_records() == before_again


@pytest.mark.parametrize(("verb", "left"), [("ban", 0), ("retire", 0), ("rebase", 2)])
def test_a_ban_and_a_retirement_end_the_devices_credentials(operator: Operator, verb: str, left: int) -> None:
    operator.add()
    issue(operator, "c1")
    issue(operator, "c2")
    assert live(operator) == 2
    operator.done("device", verb, "gw-1")
    assert live(operator) == left


def test_an_ended_credential_stays_ended_when_the_ban_is_lifted(operator: Operator) -> None:
    operator.add()
    issue(operator)
    operator.done("device", "ban", "gw-1")
    operator.done("device", "unban", "gw-1")
    assert live(operator) == 0


def test_labels_are_set_and_removed_and_say_which_policy_decides(operator: Operator) -> None:
    operator.add(labels={"role": "edge", "old": "x"})
    matched = SMALL.replace('"small"\n', '"small"\nmatch.labels = { site = ["plant-1"] }\n')
    operator.done("policy", "apply", operator.write("a.toml", matched))
    assert "no active policy" in operator.done("device", "label", "gw-1", "site=plant-2")
    assert "small@1 decides" in operator.done("device", "label", "gw-1", "site=plant-1", "old=")
    assert operator.device().labels == {"role": "edge", "site": "plant-1"}
    assert operator.last_record()["details"]["labels"] == {"site": "plant-1", "old": ""}


@pytest.mark.parametrize(
    "pair",
    ["a/b=c", "=c", ".a=c", "site=plant-*", "site= x", "site=a\x00", "site=" + "x" * 129, "é=c", "site"],
)
def test_a_label_that_is_none_is_refused(operator: Operator, pair: str) -> None:
    operator.add()
    operator.refused(
        "device", "label", "gw-1", "good=one", pair, status=1 if pair.partition("=")[0] and "=" in pair else 2
    )
    assert operator.device().labels == {}
    operator.done("device", "label", "gw-1", "good=one", "site=plant 1 é")
    assert operator.device().labels == {"good": "one", "site": "plant 1 é"}


@pytest.mark.parametrize(
    "name", ["gw-2", OTHER, "f" * 64, "", ".gw", "a/b", "a b", "é", "x" * 65, "gw\n", "gw*"]
)
def test_a_name_in_use_an_identifier_and_what_is_no_name_are_refused(operator: Operator, name: str) -> None:
    operator.add()
    operator.add(OTHER, name="gw-2")
    operator.refused("device", "rename", "gw-1", name)
    assert operator.device().name == "gw-1"


def test_a_renamed_device_is_found_by_its_new_name_alone(operator: Operator) -> None:
    operator.add()
    operator.done("device", "rename", "gw-1", "Gateway_7.north")
    assert operator.objects("device", "show", "Gateway_7.north")[0]["device_id"] == DEVICE
    operator.refused("device", "show", "gw-1")
    assert operator.last_record()["details"] | {"by": ""} == {
        "verb": "device rename",
        "by": "",
        "from": "gw-1",
        "to": "Gateway_7.north",
    }


def test_rebase_forgets_the_clock_and_says_so_on_the_record(operator: Operator) -> None:
    operator.add()
    accept(operator, NOW)
    assert operator.objects("device", "show", "gw-1")[0]["clock"]["reset_count"] == 4
    operator.done("device", "rebase", "gw-1")
    assert operator.objects("device", "show", "gw-1")[0]["clock"] is None
    details = operator.last_record()["details"]
    assert (details["verb"], details["reset_count"]) == ("device rebase", 4)


FINDING = {"code": "pcr_unexpected", "subject": "pcr7", "expected": [GOOD_7], "found": EVIL}


def test_why_tells_the_last_refusal_whole_whatever_the_device_was_told(operator: Operator) -> None:
    operator.add()
    refuse(operator, [FINDING])
    (told,) = operator.objects("device", "why", "gw-1")
    assert (told["code"], told["policy"], told["findings"]) == ("posture_rejected", "small@3", [FINDING])
    assert told["accepted_since"] is False
    text = operator.done("device", "why", "gw-1")
    for said in (
        "pcr7 (the Secure Boot policy)",
        f"sha256:{GOOD_7}",
        f"sha256:{EVIL}",
        "small@3",
        "policy apply small.toml",
    ):
        assert said in text


def test_why_says_that_a_device_was_accepted_since(operator: Operator) -> None:
    operator.add()
    refuse(operator, [FINDING])
    accept(operator, NOW + 1000)
    assert operator.objects("device", "why", "gw-1")[0]["accepted_since"] is True
    assert "accepted since" in operator.done("device", "why", "gw-1")


@pytest.mark.parametrize("code", ["device_pending", "device_banned", "no_policy", "not_entitled"])
def test_why_names_the_next_step_of_a_refusal_without_findings(operator: Operator, code: str) -> None:
    operator.add()
    refuse(operator, [], code)
    _, step = operator.done("device", "why", "gw-1").splitlines()
    assert len(step.strip()) > 20


def test_why_of_a_device_that_was_not_refused_says_so(operator: Operator) -> None:
    operator.add(state="pending")
    (told,) = operator.objects("device", "why", "gw-1")
    assert (told["code"], told["findings"]) == (None, [])
    assert "attestd device approve" in operator.done("device", "why", "gw-1")
    operator.refused("device", "why", "absent")
