"""Does `attestd audit` show what was recorded, find what was changed, and say so by its exit status?"""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from attestd.clock import now_ms
from attestd.config import load_config
from attestd.issue.audit_keys import audit_signer
from attestd.issue.keys import KeyRing
from attestd.store import audit, signing_keys
from attestd.store.audit import AuditEvent
from tests.attestd.cli.operator import DEVICE, OTHER, Operator

REFUSED = AuditEvent(
    event="attest",
    decision="refused",
    code="attestation_failed",
    cause="bad_signature",
    request_id="r-1",
    device_id=DEVICE,
    policy="edge@3",
    details={"user_agent": "curl\r\n\x1b[2J\u2028"},
)
ISSUED = AuditEvent(event="issue", decision="accepted", request_id="r-2", device_id=DEVICE)


def _record(
    operator: Operator, *events: AuditEvent, chain: str | None = DEVICE, now: int | None = None
) -> None:
    """As the service does, with the directory's own audit key."""
    store = operator.store()
    config = load_config(operator.directory / "attestd.toml", {})
    ring = KeyRing(
        config.keys, trust_domain="example.org", read_states=lambda: store.read(signing_keys.list_all)
    )
    now = now_ms() if now is None else now
    signer = audit_signer(ring.at(now_ms()))
    store.write(lambda tx: audit.append_all(tx, signer, events, chain=chain, now=now))


def _tamper(operator: Operator, statement: str) -> None:
    with sqlite3.connect(operator.directory / "attestd.db") as database:
        assert database.execute(statement).rowcount > 0


def _copy(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as opened, sqlite3.connect(target) as written:
        opened.backup(written)


@pytest.fixture
def recorded(operator: Operator) -> Operator:
    operator.add(DEVICE, name="gw-1")
    _record(operator, REFUSED, ISSUED)
    _record(
        operator, replace(REFUSED, device_id=OTHER, code="malformed", request_id="r-3", count=7), chain=None
    )
    return operator


def _shown(operator: Operator, *words: str) -> list[str | None]:
    return [each["request_id"] for each in operator.objects("audit", "show", *words) if each["request_id"]]


def test_records_are_shown_whole_one_object_a_line(recorded: Operator) -> None:
    (first, *_) = recorded.objects("audit", "show", "--request", "r-1")
    assert first.pop("time").endswith("Z")
    assert first == {
        "chain": DEVICE,
        "sequence": 1,
        "event": "attest",
        "decision": "refused",
        "code": "attestation_failed",
        "cause": "bad_signature",
        "request_id": "r-1",
        "device_id": DEVICE,
        "policy": "edge@3",
        "evidence_sha256": None,
        "count": 1,
        "details": {"user_agent": "curl\r\n\x1b[2J\u2028"},
    }


@pytest.mark.parametrize(
    ("words", "requests"),
    [
        ((), ["r-1", "r-2", "r-3"]),
        (("--device", "gw-1"), ["r-1", "r-2"]),
        (("--device", DEVICE), ["r-1", "r-2"]),
        (("--device", OTHER), ["r-3"]),
        (("--event", "attest"), ["r-1", "r-3"]),
        (("--decision", "accepted"), ["r-2"]),
        (("--code", "malformed"), ["r-3"]),
        (("--request", "r-2"), ["r-2"]),
        (("--since", "1h"), ["r-1", "r-2", "r-3"]),
        (("--since", "2099-01-01T00:00:00Z"), []),
        (("--limit", "1"), ["r-3"]),
        (("--code", "attestation_failed", "--limit", "1"), ["r-1"]),
        (("--device", "nobody"), []),
    ],
)
def test_records_are_found_by_what_is_asked_for(
    recorded: Operator, words: tuple[str, ...], requests: list[str]
) -> None:
    assert _shown(recorded, *words) == requests


def test_since_leaves_out_what_was_before(recorded: Operator) -> None:
    _record(recorded, replace(ISSUED, request_id="r-old"), chain=None, now=now_ms() - 7_200_000)
    assert "r-old" in _shown(recorded)
    assert "r-old" not in _shown(recorded, "--since", "1h")


def test_ht_9_text_for_people_is_one_printable_line_a_record(recorded: Operator) -> None:
    lines = recorded.done("audit", "show", "--device", "gw-1", "--event", "attest").splitlines()
    (line,) = lines
    assert line.isascii()
    assert line.isprintable()
    for said in ("attest", "refused", "attestation_failed", "cause=bad_signature", "\\u001b[2J\\u2028"):
        assert said in line
    assert "count=7" in recorded.done("audit", "show", "--code", "malformed")


def test_a_log_of_several_pages_is_shown_whole(operator: Operator) -> None:
    events = [replace(REFUSED, request_id=f"r-{number}") for number in range(1100)]
    _record(operator, *events, chain=None)
    assert _shown(operator, "--event", "attest") == [event.request_id for event in events]


@pytest.mark.parametrize("since", ["yesterday", "2026-11-25", ""])
def test_a_time_that_is_none_is_a_usage_error(operator: Operator, since: str) -> None:
    result = operator.run("audit", "show", "--since", since)
    assert result.exit_code == 2
    assert "write 2026-11-25T17:38:07Z" in result.stderr


def test_ad_4_an_honest_log_is_intact(recorded: Operator) -> None:
    assert recorded.done("audit", "verify").startswith("intact: ")
    (verified,) = recorded.objects("audit", "verify")
    assert (verified["valid"], verified["faults"]) == (True, [])
    assert verified["heads"][DEVICE]["sequence"] == 2
    assert verified["records"] == sum(head["sequence"] for head in verified["heads"].values())


def test_ad_4_a_changed_record_is_named_and_the_exit_status_is_1(recorded: Operator) -> None:
    _tamper(
        recorded, f"UPDATE audit_records SET code = 'no_policy' WHERE chain = '{DEVICE}' AND sequence = 1"
    )
    result = recorded.run("audit", "verify")
    assert result.exit_code == 1
    assert f"chain {DEVICE}, record 1" in result.stdout
    assert result.stderr.startswith(f"attestd: the audit log was changed: chain {DEVICE}, record 1: ")
    result = recorded.run("audit", "verify", "--json")
    assert result.exit_code == 1
    verified = json.loads(result.stdout)
    assert not verified["valid"]
    (fault,) = verified["faults"]
    assert (fault["chain"], fault["sequence"], fault["kind"]) == (DEVICE, 1, "edited")


def test_ad_4_a_database_that_was_put_back_is_found_with_a_kept_head(recorded: Operator) -> None:
    database = recorded.directory / "attestd.db"
    _copy(database, recorded.directory / "older.db")
    _record(recorded, replace(REFUSED, request_id="r-4"))
    kept = recorded.write("kept.json", recorded.done("audit", "verify", "--json"))
    assert recorded.done("audit", "verify", "--head", kept).startswith("intact: ")

    _copy(recorded.directory / "older.db", database)
    assert recorded.done("audit", "verify").startswith("intact: ")
    result = recorded.run("audit", "verify", "--head", kept)
    assert result.exit_code == 1
    assert f"chain {DEVICE}, record 3: record 3 was there" in result.stderr


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"heads": {"service": {"sequence": 1}}}', '{"heads": 1}', "\xff"]
)
def test_a_kept_head_that_is_none_is_a_usage_error(operator: Operator, content: str) -> None:
    path = operator.write("kept.json", content)
    result = operator.run("audit", "verify", "--head", path)
    assert result.exit_code == 2
    assert "not what `attestd audit verify --json` prints" in result.stderr


def test_a_kept_head_that_is_not_there_is_a_usage_error(operator: Operator, tmp_path: Path) -> None:
    assert operator.run("audit", "verify", "--head", str(tmp_path / "none.json")).exit_code == 2
