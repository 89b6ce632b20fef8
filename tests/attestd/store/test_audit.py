"""Is every event recorded in its chain, findable, and one harmless line whatever is in it?"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from attestd.clock import parse_rfc3339
from attestd.store import audit, audit_show
from attestd.store.audit import FIRST, SERVICE, AuditEvent
from attestd.store.audit_show import Wanted
from attestd.store.audit_verify import verify
from attestd.store.store import Store
from tests.attestd.store.records import NOW, ONE, TWO
from tests.attestd.store.signing import AuditKey

REFUSAL = AuditEvent(
    event="attest",
    decision="refused",
    code="attestation_failed",
    cause="bad_signature",
    request_id="r-1",
    device_id=ONE,
    policy="edge@3",
    evidence_sha256="ee" * 32,
    details={"source": "192.0.2.7"},
)


def _append(
    store: Store, key: AuditKey, event: AuditEvent, *, chain: str | None = ONE, now: int = NOW
) -> audit.Head:
    return store.write(lambda tx: audit.append(tx, key, event, chain=chain, now=now))


def _all(store: Store, **wanted) -> list[audit_show.Record]:
    return store.read(lambda tx: list(audit_show.records(tx, Wanted(**wanted))))


def test_a_record_says_everything_and_where_it_stands(store: Store, audit_key: AuditKey) -> None:
    assert _append(store, audit_key, REFUSAL, chain=None).sequence == 1
    assert _all(store) == [
        {
            "chain": "service",
            "sequence": 1,
            "time": "2025-11-25T17:38:07.123Z",
            "event": "attest",
            "decision": "refused",
            "code": "attestation_failed",
            "cause": "bad_signature",
            "request_id": "r-1",
            "device_id": ONE,
            "policy": "edge@3",
            "evidence_sha256": "ee" * 32,
            "count": 1,
            "details": {"source": "192.0.2.7"},
        }
    ]
    assert parse_rfc3339(_all(store)[0]["time"]) == NOW


@pytest.mark.parametrize("wrong", [{"event": "login"}, {"decision": "maybe"}])
def test_an_event_that_does_not_exist_is_not_recorded(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no such event"):
        replace(REFUSAL, **wrong)


def test_each_hash_covers_the_record_and_the_hash_before_it(store: Store, audit_key: AuditKey) -> None:
    for _ in range(3):
        _append(store, audit_key, REFUSAL)
    rows = store.read(
        lambda tx: tx.execute(
            "SELECT * FROM audit_records WHERE chain = ? ORDER BY sequence", (ONE,)
        ).fetchall()
    )
    previous = FIRST
    for row in rows:
        previous = hashlib.sha256(previous + row["record"].encode()).digest()
        assert row["hash"] == previous
    assert store.read(
        lambda tx: tx.execute("SELECT hash FROM audit_heads WHERE chain = ?", (ONE,)).fetchone()
    ) == {"hash": previous}


def test_a_devices_first_record_is_noted_in_the_services_chain_once(
    store: Store, audit_key: AuditKey
) -> None:
    first = _append(store, audit_key, REFUSAL)
    _append(store, audit_key, REFUSAL)
    noted = [each for each in _all(store) if each["chain"] == SERVICE]
    assert len(noted) == 1
    assert noted[0]["details"] == {"chain_started": ONE, "first_hash": first.hash.hex()}
    assert (noted[0]["event"], noted[0]["device_id"]) == ("enroll", ONE)


def test_several_events_under_one_signature_are_several_records(store: Store, audit_key: AuditKey) -> None:
    events = [replace(REFUSAL, request_id=f"r-{number}") for number in range(3)]
    head = store.write(lambda tx: audit.append_all(tx, audit_key, events, chain=ONE, now=NOW))
    assert head.sequence == 3
    assert [each["request_id"] for each in _all(store) if each["chain"] == ONE] == ["r-0", "r-1", "r-2"]
    assert store.read(lambda tx: verify(tx, audit_key)).intact


def test_nothing_to_record_is_a_mistake(store: Store, audit_key: AuditKey) -> None:
    with pytest.raises(ValueError, match="nothing"):
        store.write(lambda tx: audit.append_all(tx, audit_key, [], chain=ONE, now=NOW))
    assert store.read(lambda tx: verify(tx, audit_key)).heads == {}


def test_a_record_is_undone_with_its_transaction(store: Store, audit_key: AuditKey) -> None:
    def fail(tx) -> None:
        audit.append(tx, audit_key, REFUSAL, chain=ONE, now=NOW)
        raise LookupError

    with pytest.raises(LookupError):
        store.write(fail)
    assert _all(store) == []
    assert _append(store, audit_key, REFUSAL).sequence == 1


@pytest.mark.parametrize("chain", [ONE, None])
def test_eight_threads_append_to_one_chain_without_a_gap(
    store: Store, audit_key: AuditKey, chain: str | None
) -> None:
    with ThreadPoolExecutor(8) as pool:
        heads = list(pool.map(lambda _: _append(store, audit_key, REFUSAL, chain=chain), range(48)))
    assert sorted(head.sequence for head in heads) == list(range(1, 49))
    verified = store.read(lambda tx: verify(tx, audit_key))
    assert verified.intact
    assert verified.heads[chain or SERVICE].sequence == 48


def test_many_devices_begin_their_chains_at_once(store: Store, audit_key: AuditKey) -> None:
    chains = [f"{number:064x}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda chain: _append(store, audit_key, replace(REFUSAL, device_id=chain), chain=chain),
                chains,
            )
        )
    verified = store.read(lambda tx: verify(tx, audit_key))
    assert verified.intact
    assert set(verified.heads) == {SERVICE, *chains}


def test_records_are_found_by_each_condition_and_by_all_together(store: Store, audit_key: AuditKey) -> None:
    accepted = AuditEvent(event="issue", decision="accepted", request_id="r-2", device_id=TWO)
    _append(store, audit_key, REFUSAL, chain=None)
    _append(store, audit_key, accepted, chain=None, now=NOW + 10)
    _append(store, audit_key, replace(REFUSAL, device_id=TWO, code="malformed"), chain=None, now=NOW + 20)
    for wanted, sequences in [
        ({}, [1, 2, 3]),
        ({"device_id": TWO}, [2, 3]),
        ({"event": "attest"}, [1, 3]),
        ({"decision": "accepted"}, [2]),
        ({"code": "malformed"}, [3]),
        ({"request_id": "r-1"}, [1, 3]),
        ({"since": NOW + 10}, [2, 3]),
        ({"since": NOW + 11, "event": "attest", "device_id": TWO}, [3]),
        ({"device_id": "nobody"}, []),
    ]:
        assert [each["sequence"] for each in _all(store, **wanted)] == sequences, wanted
        newest = store.read(lambda tx, w=wanted: audit_show.newest(tx, Wanted(**w), 2))
        assert [each["sequence"] for each in newest] == sequences[-2:], wanted


def test_a_long_log_is_read_whole_a_page_at_a_time(store: Store, audit_key: AuditKey) -> None:
    length = audit_show.PAGE * 2 + 1
    events = [replace(REFUSAL, details={"number": number}) for number in range(length)]
    store.write(lambda tx: audit.append_all(tx, audit_key, events, chain=None, now=NOW))
    assert [each["details"]["number"] for each in _all(store)] == list(range(length))
    verified = store.read(lambda tx: verify(tx, audit_key))
    assert (verified.intact, verified.records) == (True, length)


INJECTIONS = [
    "a\r\nb",
    "\x1b[2J\x1b]0;owned\x07",
    "x\u2028y\u2029z",
    "\x00",
    "\x7f\x85\x9b",
    '","decision":"accepted',
    "\ud800",
]


@pytest.mark.parametrize("hostile", INJECTIONS)
def test_ht_9_what_a_stranger_chose_cannot_break_the_line(
    store: Store, audit_key: AuditKey, hostile: str
) -> None:
    event = replace(REFUSAL, details={"user_agent": hostile, hostile: 1}, cause=hostile)
    _append(store, audit_key, event, chain=None)
    raw = store.read(lambda tx: tx.execute("SELECT record FROM audit_records").fetchone())["record"]
    assert raw.isascii()
    assert raw.isprintable()
    kept = json.loads(raw)
    assert (kept["cause"], kept["details"]) == (hostile, {"user_agent": hostile, hostile: 1})
    assert kept["decision"] == "refused"
    assert store.read(lambda tx: verify(tx, audit_key)).intact
