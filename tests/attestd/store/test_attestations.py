"""Does every attestation that was begun end once, and is its reason kept?"""

import pytest

from attestd.store import attestations
from attestd.store.attestations import Attestation, Outcome
from attestd.store.store import Store
from tests.attestd.store.records import DAY, NOW, ONE, TWO

FINDINGS = ({"code": "pcr_unexpected", "subject": "pcr7", "expected": ["sha256:aa"], "found": "\u2028"},)
REFUSED = Outcome(
    outcome="refused",
    code="posture_rejected",
    findings=FINDINGS,
    policy_name="edge",
    policy_version=3,
    policy_digest="dd" * 32,
)


def _open(store: Store, attestation_id: str, device_id: str = ONE, now: int = NOW) -> None:
    store.write(
        lambda tx: attestations.open_intent(
            tx,
            attestation_id,
            device_id=device_id,
            request_sha256="aa" * 32,
            evidence_sha256="ee" * 32,
            now=now,
        )
    )


def _finish(store: Store, attestation_id: str, outcome: Outcome, now: int = NOW + 5) -> bool:
    return store.write(lambda tx: attestations.finish(tx, attestation_id, outcome, now))


def test_an_intent_is_open_until_it_ends_and_ends_once(store: Store) -> None:
    _open(store, "a-1")
    begun = Attestation(
        attestation_id="a-1",
        device_id=ONE,
        request_sha256="aa" * 32,
        evidence_sha256="ee" * 32,
        outcome="open",
        code=None,
        findings=(),
        policy_name=None,
        policy_version=None,
        policy_digest=None,
        opened_at=NOW,
        finished_at=None,
    )
    assert store.read(lambda tx: attestations.get(tx, "a-1")) == begun
    assert _finish(store, "a-1", REFUSED)
    ended = store.read(lambda tx: attestations.get(tx, "a-1"))
    assert ended is not None
    assert (ended.outcome, ended.code, ended.findings) == ("refused", "posture_rejected", FINDINGS)
    assert (ended.policy_name, ended.policy_version, ended.finished_at) == ("edge", 3, NOW + 5)
    assert not _finish(store, "a-1", Outcome(outcome="issued"))
    assert store.read(lambda tx: attestations.get(tx, "a-1")) == ended


def test_what_was_never_begun_cannot_end(store: Store) -> None:
    assert not _finish(store, "a-1", Outcome(outcome="issued"))
    assert store.read(lambda tx: attestations.get(tx, "a-1")) is None


def test_an_attestation_cannot_begin_twice(store: Store) -> None:
    _open(store, "a-1")
    with pytest.raises(Exception, match=r"(?i)unique"):
        _open(store, "a-1", device_id=TWO)


def test_old_intents_are_abandoned_and_then_nothing_can_be_issued_for_them(store: Store) -> None:
    _open(store, "old", now=NOW - 61_000)
    _open(store, "older", device_id=TWO, now=NOW - 62_000)
    _open(store, "young", now=NOW - 59_000)
    _open(store, "done", now=NOW - 61_000)
    _finish(store, "done", Outcome(outcome="issued"))
    abandoned = store.write(lambda tx: attestations.abandon_older_than(tx, NOW - 60_000, NOW))
    assert [(each.attestation_id, each.outcome, each.finished_at) for each in abandoned] == [
        ("older", "abandoned", NOW),
        ("old", "abandoned", NOW),
    ]
    assert not _finish(store, "old", Outcome(outcome="issued"))
    assert _finish(store, "young", Outcome(outcome="issued"))
    assert store.write(lambda tx: attestations.abandon_older_than(tx, NOW - 60_000, NOW)) == []


def test_the_last_refusal_of_a_device_is_its_newest_and_no_others(store: Store) -> None:
    assert store.read(lambda tx: attestations.last_refusal(tx, ONE)) is None
    for number, (device_id, outcome) in enumerate(
        [(ONE, REFUSED), (ONE, REFUSED), (TWO, REFUSED), (ONE, Outcome(outcome="issued"))]
    ):
        _open(store, f"a-{number}", device_id)
        _finish(store, f"a-{number}", outcome, NOW + number)
    last = store.read(lambda tx: attestations.last_refusal(tx, ONE))
    assert last is not None
    assert last.attestation_id == "a-1"


def test_old_attestations_are_forgotten_but_not_why_a_device_was_last_refused(store: Store) -> None:
    for number, outcome in enumerate(
        [REFUSED, REFUSED, Outcome(outcome="issued"), Outcome(outcome="conflict")]
    ):
        _open(store, f"a-{number}", now=NOW - DAY)
        _finish(store, f"a-{number}", outcome, NOW - DAY + number)
    _open(store, "open", now=NOW - DAY)
    _open(store, "young")
    _finish(store, "young", Outcome(outcome="issued"))
    assert store.write(lambda tx: attestations.purge(tx, NOW)) == 3
    kept = [
        name
        for name in ("a-0", "a-1", "a-2", "a-3", "open", "young")
        if store.read(lambda tx, n=name: attestations.get(tx, n))
    ]
    assert kept == ["a-1", "open", "young"]
