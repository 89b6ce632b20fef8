"""AD-4: is the first bad record named, whatever was done to the log, and nothing in an honest one?"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from attestd.store import audit, meta
from attestd.store.audit import SERVICE, AuditEvent, Head
from attestd.store.audit_verify import Fault, Verification, verify
from attestd.store.engine import Transaction
from attestd.store.store import Store
from tests.attestd.store.records import NOW, ONE, TWO
from tests.attestd.store.signing import AuditKey

LENGTH = 6
EVENT = AuditEvent(event="attest", decision="refused", code="posture_rejected", device_id=ONE)

Tampering = Callable[[Transaction], object]

RECORD = "WHERE chain = ? AND sequence = ?"
SET = "UPDATE audit_records SET"
HEAD = "UPDATE audit_heads SET"
EDIT = f"{SET} record = replace(record, 'refused', 'accepted') {RECORD}"
CUT = "DELETE FROM audit_records WHERE chain = ? AND sequence > 4"
FORGED_HEAD = f"{HEAD} sequence = ?, hash = (SELECT hash FROM audit_records {RECORD})"


def _append(store: Store, key: AuditKey, chain: str | None, number: int = 1) -> None:
    for _ in range(number):
        store.write(lambda tx: audit.append(tx, key, replace(EVENT, device_id=chain), chain=chain, now=NOW))


def _verify(store: Store, key: AuditKey, anchors: dict[str, Head] | None = None) -> Verification:
    return store.read(lambda tx: verify(tx, key, anchors))


def _faults(verification: Verification) -> list[tuple[str, int | None, str]]:
    return [(fault.chain, fault.sequence, fault.kind) for fault in verification.faults]


@pytest.fixture
def honest(store: Store, audit_key: AuditKey) -> Store:
    """Two devices with six records each; three of the service's own beside those that note the starts."""
    for chain in (ONE, TWO):
        _append(store, audit_key, chain, LENGTH)
    _append(store, audit_key, None, 3)
    return store


def _sql(statement: str, *parameters: str | int | bytes) -> Tampering:
    return lambda tx: tx.execute(statement, parameters)


def _swap(tx: Transaction) -> None:
    for before, after in ((3, -3), (4, 3), (-3, 4)):
        _sql("UPDATE audit_records SET sequence = ? WHERE chain = ? AND sequence = ?", after, ONE, before)(tx)


def _row(tx: Transaction, sequence: int) -> dict:
    return tx.execute(
        "SELECT * FROM audit_records WHERE chain = ? AND sequence = ?", (ONE, sequence)
    ).fetchone()


def _forge(tx: Transaction, sequence: int, previous: int) -> None:
    """A record that fits behind its predecessor, made by somebody who knows how but has no key."""
    record = _row(tx, previous)["record"].replace(f'"sequence":{previous}', f'"sequence":{sequence}')
    digest = hashlib.sha256(_row(tx, previous)["hash"] + record.encode()).digest()
    values = (ONE, sequence, NOW, "attest", "refused", "posture_rejected", ONE, record, digest)
    _sql(
        """INSERT INTO audit_records (chain, sequence, time, event, decision, code, device_id, record, hash)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        *values,
    )(tx)


def _insert_in_the_middle(tx: Transaction) -> None:
    for sequence in range(LENGTH, 3, -1):
        _sql(
            "UPDATE audit_records SET sequence = ? WHERE chain = ? AND sequence = ?",
            sequence + 1,
            ONE,
            sequence,
        )(tx)
    _forge(tx, 4, 3)


def _rewrite_from(first: int) -> Tampering:
    """Edit a record and make every later hash right again."""

    def tamper(tx: Transaction) -> None:
        previous = _row(tx, first - 1)["hash"] if first > 1 else audit.FIRST
        for sequence in range(first, LENGTH + 1):
            record = _row(tx, sequence)["record"].replace("posture_rejected", "no_policy")
            previous = hashlib.sha256(previous + record.encode()).digest()
            values = (record, previous, ONE, sequence)
            tx.execute(f"{SET} record = ?, hash = ?, code = 'no_policy' {RECORD}", values)

    return tamper


TAMPERINGS: list[tuple[str, Tampering, tuple[str, int | None, str]]] = [
    ("edit the first", _sql(EDIT, ONE, 1), (ONE, 1, "edited")),
    ("edit one", _sql(EDIT, ONE, 3), (ONE, 3, "edited")),
    ("edit the last", _sql(EDIT, ONE, LENGTH), (ONE, LENGTH, "edited")),
    ("edit the service's", _sql(EDIT, SERVICE, 4), (SERVICE, 4, "edited")),
    ("no record at all", _sql(f"{SET} record = 'null' {RECORD}", ONE, 2), (ONE, 2, "reordered")),
    ("edit a hash", _sql(f"{SET} hash = ? {RECORD}", bytes(32), ONE, 3), (ONE, 3, "edited")),
    ("file under another code", _sql(f"{SET} code = 'x' {RECORD}", ONE, 3), (ONE, 3, "edited")),
    ("file under no code", _sql(f"{SET} code = NULL {RECORD}", ONE, 3), (ONE, 3, "edited")),
    ("file under another time", _sql(f"{SET} time = 0 {RECORD}", ONE, 3), (ONE, 3, "edited")),
    ("file under no time", _sql(f"{SET} time = ? {RECORD}", 2**63 - 1, ONE, 3), (ONE, 3, "edited")),
    ("file before all time", _sql(f"{SET} time = -1 {RECORD}", ONE, 3), (ONE, 3, "edited")),
    ("file under nobody", _sql(f"{SET} device_id = NULL {RECORD}", ONE, 3), (ONE, 3, "edited")),
    ("delete the first", _sql(f"DELETE FROM audit_records {RECORD}", ONE, 1), (ONE, 1, "removed")),
    ("delete one", _sql(f"DELETE FROM audit_records {RECORD}", ONE, 3), (ONE, 3, "removed")),
    ("swap two", _swap, (ONE, 3, "reordered")),
    (
        "delete one and close the gap",
        lambda tx: (
            _sql(f"DELETE FROM audit_records {RECORD}", ONE, 3)(tx),
            [_sql(f"{SET} sequence = ? {RECORD}", n - 1, ONE, n)(tx) for n in range(4, LENGTH + 1)],
        ),
        (ONE, 3, "reordered"),
    ),
    ("insert in the middle", _insert_in_the_middle, (ONE, 4, "inserted")),
    ("insert at the end", lambda tx: _forge(tx, LENGTH + 1, LENGTH), (ONE, LENGTH + 1, "inserted")),
    ("cut the tail", _sql(CUT, ONE), (ONE, 5, "tail_cut")),
    (
        "cut everything but the head",
        _sql("DELETE FROM audit_records WHERE chain = ?", ONE),
        (ONE, 1, "tail_cut"),
    ),
    ("rewrite with right hashes", _rewrite_from(3), (ONE, None, "rewritten")),
    (
        "cut the tail and forge the head",
        lambda tx: (
            _sql(CUT, ONE)(tx),
            _sql(f"{FORGED_HEAD} WHERE chain = ?", 4, ONE, 4, ONE)(tx),
        ),
        (ONE, None, "head_forged"),
    ),
    (
        "another time in the head",
        _sql(f"{HEAD} time = time + 1 WHERE chain = ?", ONE),
        (ONE, None, "head_forged"),
    ),
    ("another epoch in the head", _sql(f"{HEAD} epoch = 2 WHERE chain = ?", ONE), (ONE, None, "head_forged")),
    (
        "another key in the head",
        _sql(f"{HEAD} kid = 'audit-2' WHERE chain = ?", ONE),
        (ONE, None, "head_forged"),
    ),
    (
        "garbage for a signature",
        _sql(f"{HEAD} signature = ? WHERE chain = ?", b"\x30", ONE),
        (ONE, None, "head_forged"),
    ),
    ("take the head away", _sql("DELETE FROM audit_heads WHERE chain = ?", ONE), (ONE, None, "head_missing")),
    (
        "take a whole chain away",
        lambda tx: (
            _sql("DELETE FROM audit_records WHERE chain = ?", ONE)(tx),
            _sql("DELETE FROM audit_heads WHERE chain = ?", ONE)(tx),
        ),
        (ONE, 1, "chain_missing"),
    ),
    (
        "take the service's chain away",
        lambda tx: (
            _sql("DELETE FROM audit_records WHERE chain = ?", SERVICE)(tx),
            _sql("DELETE FROM audit_heads WHERE chain = ?", SERVICE)(tx),
        ),
        (SERVICE, 1, "chain_missing"),
    ),
]


def test_ad_4_an_honest_log_is_intact(honest: Store, audit_key: AuditKey) -> None:
    verified = _verify(honest, audit_key)
    assert verified.intact
    assert verified.records == 2 * LENGTH + 5
    assert {chain: head.sequence for chain, head in verified.heads.items()} == {
        ONE: LENGTH,
        TWO: LENGTH,
        SERVICE: 5,
    }


def test_an_empty_log_is_intact(store: Store, audit_key: AuditKey) -> None:
    assert _verify(store, audit_key) == Verification(0, {}, ())


@pytest.mark.parametrize(("tamper", "expected"), [pytest.param(t, e, id=name) for name, t, e in TAMPERINGS])
def test_ad_4_the_first_bad_record_is_named_and_only_its_chain(
    honest: Store, audit_key: AuditKey, tamper: Tampering, expected: tuple[str, int | None, str]
) -> None:
    honest.write(tamper)
    assert _faults(_verify(honest, audit_key)) == [expected]


def test_ad_4_a_chain_that_the_service_never_began_is_named(honest: Store, audit_key: AuditKey) -> None:
    """Somebody who has the audit key makes up a device's history, and takes away that it began just now."""
    made_up = "77" * 32
    _append(honest, audit_key, made_up)
    honest.write(_sql(f"DELETE FROM audit_records {RECORD}", SERVICE, 6))
    honest.write(lambda tx: _sign_anew(tx, audit_key, SERVICE, 5))
    assert _faults(_verify(honest, audit_key)) == [(made_up, 1, "chain_unknown")]


def _sign_anew(tx: Transaction, key: AuditKey, chain: str, sequence: int) -> None:
    found = tx.execute(f"SELECT hash FROM audit_records {RECORD}", (chain, sequence)).fetchone()
    statement = audit.head_statement(chain, Head(sequence, found["hash"]), time=NOW, epoch=1)
    values = (sequence, found["hash"], NOW, key.sign(statement), chain)
    tx.execute(
        "UPDATE audit_heads SET sequence = ?, hash = ?, time = ?, signature = ? WHERE chain = ?", values
    )


@pytest.mark.parametrize("later", [0, 1])
def test_ad_4_a_chain_that_began_anew_after_it_was_taken_away_is_named(
    honest: Store, audit_key: AuditKey, later: int
) -> None:
    for table in ("audit_records", "audit_heads"):
        honest.write(_sql(f"DELETE FROM {table} WHERE chain = ?", ONE))
    # The service goes on and notes a start once more, even if the record is the same to the byte.
    event = replace(EVENT, device_id=ONE)
    honest.write(lambda tx: audit.append(tx, audit_key, event, chain=ONE, now=NOW + later))
    assert _faults(_verify(honest, audit_key)) == [(ONE, 1, "rewritten")]


def test_ad_4_a_beginning_that_was_made_up_is_not_the_one_that_was_noted(
    honest: Store, audit_key: AuditKey
) -> None:
    """Somebody who has the audit key rewrites a device's chain as a whole and signs it."""
    honest.write(_rewrite_from(1))
    honest.write(lambda tx: _sign_anew(tx, audit_key, ONE, LENGTH))
    assert _faults(_verify(honest, audit_key)) == [(ONE, 1, "rewritten")]


def test_ad_4_several_chains_that_were_changed_are_all_named(honest: Store, audit_key: AuditKey) -> None:
    honest.write(_sql(EDIT, ONE, 5))
    honest.write(_sql(EDIT, ONE, 2))
    honest.write(_sql(f"DELETE FROM audit_records {RECORD}", TWO, 4))
    assert _faults(_verify(honest, audit_key)) == [(ONE, 2, "edited"), (TWO, 4, "removed")]


def _copy(tx: Transaction, table: str) -> list[dict]:
    return tx.execute(f"SELECT * FROM {table}").fetchall()


def _put_back(copies: dict[str, list[dict]]) -> Tampering:
    def tamper(tx: Transaction) -> None:
        for table, rows in copies.items():
            tx.execute(f"DELETE FROM {table}")
            for row in rows:
                columns, marks = ", ".join(row), ", ".join("?" for _ in row)
                tx.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))

    return tamper


def test_ad_4_an_older_copy_of_everything_is_found_with_an_anchor(honest: Store, audit_key: AuditKey) -> None:
    tables = ("audit_records", "audit_heads")
    older = {table: honest.read(lambda tx, table=table: _copy(tx, table)) for table in tables}
    _append(honest, audit_key, ONE, 2)
    anchor = dict(_verify(honest, audit_key).heads)
    assert _verify(honest, audit_key, anchor).intact

    honest.write(_put_back(older))
    assert _verify(honest, audit_key).intact  # it was true once: without an anchor nothing is wrong with it
    expected = (ONE, LENGTH + 1, "older_copy")
    assert _faults(_verify(honest, audit_key, anchor)) == [expected]

    # Continued from the older copy, it is another history.
    _append(honest, audit_key, ONE, 3)
    honest.write(lambda tx: meta.raise_epoch(tx, NOW))
    assert _verify(honest, audit_key).intact
    verified = _verify(honest, audit_key, anchor | {ONE: replace(anchor[ONE], hash=bytes(32))})
    assert _faults(verified) == [(ONE, None, "rewritten")]


def test_ad_4_an_emptied_log_is_found_with_an_anchor(honest: Store, audit_key: AuditKey) -> None:
    anchor = dict(_verify(honest, audit_key).heads)
    for table in ("audit_records", "audit_heads"):
        honest.write(_sql(f"DELETE FROM {table}"))
    assert _faults(_verify(honest, audit_key, anchor)) == [
        (chain, 1, "older_copy") for chain in (ONE, TWO, SERVICE)
    ]


def test_an_anchor_taken_earlier_still_holds_when_the_log_has_grown(
    honest: Store, audit_key: AuditKey
) -> None:
    anchor = dict(_verify(honest, audit_key).heads)
    _append(honest, audit_key, ONE, 2)
    _append(honest, audit_key, "77" * 32)
    assert _verify(honest, audit_key, anchor).intact


def test_heads_of_every_audit_key_there_was_are_believed_and_of_no_other(
    store: Store, audit_key: AuditKey
) -> None:
    second, stranger = AuditKey.make("audit-2"), AuditKey.make("audit-1")

    class Both:
        def verify(self, kid: str, message: bytes, signature: bytes, /) -> bool:
            return any(key.verify(kid, message, signature) for key in (audit_key, second))

    _append(store, audit_key, ONE)
    _append(store, second, TWO)
    assert store.read(lambda tx: verify(tx, Both())).intact
    _append(store, stranger, ONE)
    assert _faults(store.read(lambda tx: verify(tx, Both()))) == [(ONE, None, "head_forged")]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("CAST(x'7b2280ff227d' AS TEXT)", id="not UTF-8"),
        pytest.param("x'00ff'", id="bytes instead of text"),
        pytest.param("17", id="a number"),
        pytest.param("printf('%s', replace(hex(zeroblob(50000)), '00', '['))", id="nested without end"),
    ],
)
def test_ad_4_a_damaged_file_is_named_too(tmp_path, audit_key: AuditKey, damage: str) -> None:
    store = Store.open(f"sqlite:{tmp_path / 'attestd.db'}")
    store.migrate()
    _append(store, audit_key, ONE, LENGTH)
    store.write(_sql(f"{SET} record = {damage} {RECORD}", ONE, 3))
    (fault,) = _verify(store, audit_key).faults
    assert isinstance(fault, Fault)
    assert (fault.chain, fault.sequence) == (ONE, 3)
    assert fault.kind in ("edited", "reordered")
