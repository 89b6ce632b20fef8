"""Does a trace find what belongs together, on both engines, whatever else the log says?"""

from typing import Any

import pytest

from attestd.store import audit, credentials, devices
from attestd.store.audit import AuditEvent
from attestd.store.audit_trace import Step, trace
from attestd.store.engine import Transaction
from attestd.store.store import Store
from tests.attestd.store.records import NOW, ONE, TWO, device, issued
from tests.attestd.store.signing import AuditKey


def event(kind: str, device_id: str, request_id: str, **details: Any) -> AuditEvent:
    return AuditEvent(
        event=kind,  # type: ignore[arg-type]  # the caller's are events
        decision="accepted",
        request_id=request_id,
        device_id=device_id,
        policy="edge@3",
        details=details,
    )


def chain(device_id: str, name: str, *parents: str) -> list[AuditEvent]:
    """From the enrolment to one token, identifiers made of `name`."""
    about = {"expires_at": NOW + 1000, "agent": "telemetry"}
    posture = {"attestation_id": f"a_{name}"}
    token = {"token_id": f"t_{name}", "credential_id": f"c_{name}", "parents": list(parents), **posture}
    told = {"actors": "{}", "confirmation": '{"jkt":"k"}', "authorization_details": None}
    return [
        event("activate", device_id, f"r0{name}", state="active"),
        event("attest", device_id, f"r1{name}", checks=["pcr0"], **posture),
        event("issue", device_id, f"r1{name}", credential_id=f"c_{name}", **posture, **about),
        event("token", device_id, f"r2{name}", **token, **about, **told),
    ]


@pytest.fixture
def recorded(store: Store, audit_key: AuditKey) -> Store:
    """Two machines; the second one's token was made of the first one's."""

    def record(tx: Transaction) -> None:
        for device_id, events in ((ONE, chain(ONE, "one")), (TWO, chain(TWO, "two", "t_one"))):
            devices.insert(tx, device(device_id))
            audit.append_all(tx, audit_key, events, chain=device_id, now=NOW)

    store.write(record)
    return store


def of(store: Store, identifier: str) -> list[tuple[str, str]]:
    """Device and kind of each step."""
    steps: tuple[Step, ...] = store.read(lambda tx: trace(tx, identifier))
    return [(step["device_id"], step["step"]) for step in steps]


WHOLE = ["enrolled", "attested", "credential", "token"]


@pytest.mark.parametrize("identifier", ["t_two", "r2two"])
def test_a_token_is_found_with_its_parents_on_other_machines(recorded: Store, identifier: str) -> None:
    expected = [(each, kind) for each in (ONE, TWO) for kind in WHOLE]
    assert of(recorded, identifier) == expected


@pytest.mark.parametrize("identifier", ["a_one", "c_one", "r1one", "t_one"])
def test_and_from_the_parent_what_was_made_of_it(recorded: Store, identifier: str) -> None:
    assert of(recorded, identifier) == [*((ONE, kind) for kind in WHOLE), (TWO, "token")]


@pytest.mark.parametrize("identifier", ["T_ONE", "t_on", "txone", "t%", "%", "", "telemetry", "k", ONE])
def test_only_whole_identifiers_are_found(recorded: Store, identifier: str) -> None:
    """One engine's LIKE knows no case, and both know wildcards."""
    assert of(recorded, identifier) == []


def test_its_end_is_told_with_the_record_of_that_moment(recorded: Store, audit_key: AuditKey) -> None:
    kept = issued("c_one", expires_at=NOW + 600_000)
    recorded.write(lambda tx: credentials.insert_all(tx, [kept]))
    recorded.write(lambda tx: credentials.end_for_device(tx, ONE, reason="posture_rejected", now=NOW + 5))
    refused = AuditEvent(event="attest", decision="refused", code="posture_rejected", device_id=ONE)
    recorded.write(lambda tx: audit.append(tx, audit_key, refused, chain=ONE, now=NOW + 5))
    recorded.write(lambda tx: audit.append(tx, audit_key, refused, chain=ONE, now=NOW + 6))
    assert of(recorded, "c_one") == [*((ONE, kind) for kind in WHOLE), (TWO, "token"), (ONE, "attested")]
    steps = recorded.read(lambda tx: trace(tx, "c_one"))
    assert steps[2]["ended_because"] == "posture_rejected"
    assert steps[2]["ended_at"] == steps[-1]["time"] == audit.record_time(NOW + 5)


def test_a_new_enrolment_later_is_not_what_it_rests_on(recorded: Store, audit_key: AuditKey) -> None:
    again = event("activate", ONE, "r9", state="active")
    recorded.write(lambda tx: audit.append(tx, audit_key, again, chain=ONE, now=NOW + 9))
    steps = recorded.read(lambda tx: trace(tx, "t_one"))
    assert [step["request_id"] for step in steps if step["step"] == "enrolled"] == ["r0one"]


def test_a_chain_that_bites_its_tail_ends(store: Store, audit_key: AuditKey) -> None:
    """Nobody issues such tokens; a database that was tampered with may say so."""
    events = [*chain(ONE, "one", "t_two"), *chain(ONE, "two", "t_one")]
    store.write(lambda tx: audit.append_all(tx, audit_key, events, chain=ONE, now=NOW))
    assert [kind for _, kind in of(store, "t_one")].count("token") == 2
