"""Is what was left open closed, and what has expired forgotten, and nothing else?"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from attestd.store import attestations, audit_show, credentials, devices, enrollments, meta, nonces
from attestd.store.attestations import Outcome
from attestd.store.audit_counter import CountedRefusals
from attestd.store.audit_show import Record, Wanted
from attestd.store.audit_verify import verify
from attestd.store.engine import Transaction
from attestd.store.maintenance import Maintained, maintain
from attestd.store.store import Store
from tests.attestd.store.records import DAY, NOW, ONE, TWO, device, issued
from tests.attestd.store.signing import AuditKey

NONCE = b"n" * 32


def _maintain(
    store: Store, key: AuditKey, now: int = NOW, counted: CountedRefusals | None = None
) -> Maintained:
    return maintain(store, key, now=now, skew_seconds=5, pending_seconds=3600, counted=counted)


def _records(store: Store, **wanted: Any) -> list[Record]:
    return store.read(lambda tx: list(audit_show.records(tx, Wanted(**wanted))))


def _begin(tx: Transaction, opened_at: int) -> None:
    """The first transaction of an attestation, after which the process died."""
    assert nonces.spend(tx, NONCE, spent_at=opened_at, expires_at=NOW + DAY)
    attestations.open_intent(
        tx, "a-1", device_id=ONE, request_sha256="aa" * 32, evidence_sha256="ee" * 32, now=opened_at
    )


def test_an_intent_whose_process_died_is_closed_with_its_record(store: Store, audit_key: AuditKey) -> None:
    store.write(lambda tx: _begin(tx, NOW - 60_001))
    assert _maintain(store, audit_key).abandoned == 1
    (record,) = _records(store, event="attest")
    assert (record["chain"], record["decision"], record["code"], record["cause"]) == (
        ONE, "refused", "unavailable", "abandoned",
    )  # fmt: skip
    assert (record["evidence_sha256"], record["details"]) == ("ee" * 32, {"attestation_id": "a-1"})
    assert not store.write(lambda tx: attestations.finish(tx, "a-1", Outcome(outcome="issued"), NOW))
    assert not store.write(lambda tx: nonces.spend(tx, NONCE, spent_at=NOW, expires_at=NOW + DAY))
    assert store.read(lambda tx: verify(tx, audit_key)).intact
    assert _maintain(store, audit_key).abandoned == 0


def test_an_intent_that_may_still_end_is_left_open(store: Store, audit_key: AuditKey) -> None:
    store.write(lambda tx: _begin(tx, NOW - 60_000))
    assert _maintain(store, audit_key).abandoned == 0
    assert store.write(lambda tx: attestations.finish(tx, "a-1", Outcome(outcome="issued"), NOW))


def test_several_processes_close_an_intent_once(database: str, store: Store, audit_key: AuditKey) -> None:
    store.write(lambda tx: _begin(tx, NOW - 60_001))
    others = [Store.open(database) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda other: _maintain(other, audit_key).abandoned, others))
    assert sorted(done) == [0, 0, 1]
    assert len(_records(store, event="attest")) == 1
    for other in others:
        other.close()


def test_devices_that_waited_too_long_are_forgotten_with_a_record(store: Store, audit_key: AuditKey) -> None:
    old, young = device(ONE, state="pending", created_at=NOW - 3_600_001), device(TWO, state="pending")
    store.write(lambda tx: [devices.insert(tx, each) for each in (old, young)])
    assert _maintain(store, audit_key).pending_forgotten == 1
    assert [each.device_id for each in store.read(devices.list_all)] == [TWO]
    (record,) = _records(store, event="admin")
    assert (record["device_id"], record["cause"]) == (ONE, "pending_expired")


@pytest.fixture
def expired(store: Store) -> Store:
    def fill(tx: Transaction) -> None:
        nonces.spend(tx, NONCE, spent_at=NOW - DAY, expires_at=NOW - 1)
        nonces.spend(tx, b"young", spent_at=NOW, expires_at=NOW)
        enrollments.spend(tx, "aa", device_id=ONE, ak_name="000b", expires_at=NOW - 1)
        enrollments.spend(tx, "bb", device_id=ONE, ak_name="000b", expires_at=NOW)
        credentials.insert_all(tx, [issued("old", expires_at=NOW - 30 * DAY - 1), issued("young")])
        attestations.open_intent(tx, "old", device_id=ONE, request_sha256="aa", now=NOW - 31 * DAY)
        attestations.finish(tx, "old", Outcome(outcome="issued"), NOW - 30 * DAY - 1)

    store.write(fill)
    return store


def test_only_what_has_expired_is_forgotten(expired: Store, audit_key: AuditKey) -> None:
    assert _maintain(expired, audit_key).purged == 4
    assert expired.read(lambda tx: nonces.is_spent(tx, b"young"))
    assert expired.read(lambda tx: enrollments.find(tx, "bb")) is not None
    assert expired.read(lambda tx: credentials.get(tx, "young")) is not None
    assert _maintain(expired, audit_key).purged == 0


def test_st_3_a_clock_that_went_back_forgets_nothing_and_says_so(expired: Store, audit_key: AuditKey) -> None:
    expired.write(lambda tx: meta.advance_time(tx, NOW + 5001, 0))
    assert _maintain(expired, audit_key) == Maintained(True, 0, 0, 0)
    assert expired.read(lambda tx: nonces.is_spent(tx, NONCE))


def test_st_3_the_time_by_which_rows_were_forgotten_is_kept(expired: Store, audit_key: AuditKey) -> None:
    """A clock that ran ahead and was set right must not find nonces unspent."""
    _maintain(expired, audit_key, now=NOW + DAY)
    assert not expired.read(lambda tx: nonces.is_spent(tx, b"young"))
    assert not expired.write(lambda tx: meta.advance_time(tx, NOW, 5000))


def test_counted_refusals_are_recorded_when_their_minute_has_ended(store: Store, audit_key: AuditKey) -> None:
    counted = CountedRefusals(1)
    for _ in range(5):
        counted.admit("attest", "attestation_failed", NOW)
    _maintain(store, audit_key, counted=counted)
    assert _records(store) == []
    _maintain(store, audit_key, now=NOW + 60_000, counted=counted)
    (record,) = _records(store)
    assert (record["chain"], record["code"], record["count"]) == ("service", "attestation_failed", 4)
