"""Is the audit log as it was written? Names the first bad record of each chain.

What this cannot see by itself: a chain and its head that were both put back to an older state that was once
true. It takes an anchor, the heads of an earlier verification kept elsewhere, to miss what came after.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from attestd.store.audit import BEGINNING, FIRST, SERVICE, Head, head_statement, link, record_time
from attestd.store.engine import Row, Transaction

Kind = Literal[
    "edited",
    "removed",
    "reordered",
    "inserted",
    "tail_cut",
    "rewritten",
    "head_forged",
    "head_missing",
    "chain_missing",
    "chain_unknown",
    "older_copy",
]

PAGE = 500
LATEST_MS = 253_402_300_799_999
"""The end of the year 9999: a later time cannot be written."""


class HeadVerifier(Protocol):
    """The public halves of all audit keys there ever were."""

    def verify(self, kid: str, message: bytes, signature: bytes, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong with a chain.

    `sequence` is the first record that is bad or missing, None if none can be named.
    """

    chain: str
    sequence: int | None
    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at and what is wrong with it; `heads` is the anchor for later verifications."""

    records: int
    heads: Mapping[str, Head]
    faults: tuple[Fault, ...]

    @property
    def intact(self) -> bool:
        return not self.faults


@dataclass(slots=True)
class _Walk:
    """What one pass over a chain's records finds."""

    chain: str
    watched: set[int]
    """Sequences whose hash is wanted."""
    last: Head = BEGINNING
    before_last: bytes = FIRST
    records: int = 0
    fault: Fault | None = None
    hashes: dict[int, bytes] = field(default_factory=dict)
    started: dict[str, str] = field(default_factory=dict)
    """In the service's chain: the first hash of each device's chain, by chain."""
    started_again: set[str] = field(default_factory=set)


def verify(
    tx: Transaction, verifier: HeadVerifier, anchors: Mapping[str, Head] | None = None
) -> Verification:
    """Every chain from its first record to its signed head, and against `anchors` if there are any."""
    anchors = anchors or {}
    rows = {row["chain"]: row for row in tx.execute("SELECT * FROM audit_heads ORDER BY chain").fetchall()}
    walks: dict[str, _Walk] = {}
    faults: dict[str, Fault] = {}
    for chain in sorted({*rows, *_recorded(tx), *anchors}):
        anchor = anchors.get(chain)
        walk = _walk(tx, chain, watched={1} if anchor is None else {1, anchor.sequence})
        walks[chain] = walk
        fault = walk.fault or _head_fault(walk, rows.get(chain), verifier) or _anchor_fault(walk, anchor)
        if fault is not None:
            faults[chain] = fault
    for fault in _unmatched(walks):
        faults.setdefault(fault.chain, fault)
    heads = {chain: walk.last for chain, walk in walks.items() if walk.records}
    in_order = tuple(faults[chain] for chain in sorted(faults))
    return Verification(sum(walk.records for walk in walks.values()), heads, in_order)


def _recorded(tx: Transaction) -> Iterator[str]:
    """The chains that have records, one step in the index each: DISTINCT would read the whole log."""
    chain = ""
    while row := tx.execute(
        "SELECT chain FROM audit_records WHERE chain > ? ORDER BY chain LIMIT 1", (chain,)
    ).fetchone():
        chain = row["chain"]
        yield chain


def _walk(tx: Transaction, chain: str, *, watched: set[int]) -> _Walk:
    walk = _Walk(chain, watched)
    sequence = -1
    while True:
        rows = tx.execute(
            "SELECT * FROM audit_records WHERE chain = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (chain, sequence, PAGE),
        ).fetchall()
        for row in rows:
            record = _parsed(row)
            walk.fault = walk.fault or _record_fault(walk, row, record)
            _pass(walk, row, record)
        if len(rows) < PAGE:
            return walk
        sequence = rows[-1]["sequence"]


def _pass(walk: _Walk, row: Row, record: Mapping[str, Any]) -> None:
    walk.records += 1
    walk.before_last, walk.last = walk.last.hash, Head(row["sequence"], row["hash"])
    if row["sequence"] in walk.watched:
        walk.hashes[row["sequence"]] = row["hash"]
    details = record.get("details")
    if walk.chain == SERVICE and isinstance(details, dict) and "chain_started" in details:
        started = str(details["chain_started"])
        if started in walk.started:
            walk.started_again.add(started)
        walk.started.setdefault(started, str(details.get("first_hash")))


def _record_fault(walk: _Walk, row: Row, record: Mapping[str, Any]) -> Fault | None:
    expected = walk.last.sequence + 1
    this = f"record {expected}"
    # 1. None is missing before it.
    if row["sequence"] != expected:
        return Fault(walk.chain, expected, "removed", f"{this} is gone: the next one is {row['sequence']}")
    # 2. It is a record, and where it says.
    types = (type(row["record"]), type(row["hash"]), type(row["time"]))
    if types != (str, bytes, int) or not 0 <= row["time"] <= LATEST_MS:
        return Fault(walk.chain, expected, "edited", f"{this} is no record any more")
    if (record.get("chain"), record.get("sequence")) != (walk.chain, expected):
        if record.get("sequence") == expected - 1 and row["hash"] == link(walk.before_last, row["record"]):
            told = f"record {expected - 1} stands where another one was"
            return Fault(walk.chain, expected - 1, "inserted", told)
        told = (
            f"in the place of {this} is one that says it is {record.get('sequence')} of {record.get('chain')}"
        )
        return Fault(walk.chain, expected, "reordered", told)
    # 3. It is what was hashed behind its predecessor.
    if row["hash"] != link(walk.last.hash, row["record"]):
        return Fault(walk.chain, expected, "edited", f"{this} does not have the hash that it had")
    # 4. What it is found by is what it says.
    columns = {name: row[name] for name in ("event", "decision", "code", "request_id", "device_id")}
    columns["time"] = record_time(row["time"])
    if any(value != record.get(name) for name, value in columns.items()):
        return Fault(walk.chain, expected, "edited", f"{this} is filed as something that it does not say")
    return None


def _head_fault(walk: _Walk, row: Row | None, verifier: HeadVerifier) -> Fault | None:
    chain, end = walk.chain, walk.last.sequence
    # 1. There is a head, and it is ours.
    if row is None:
        return Fault(chain, None, "head_missing", "the chain has no signed head") if end else None
    if not _is_signed(chain, row, verifier):
        return Fault(chain, None, "head_forged", f"the head was not signed by the audit key {row['kid']}")
    # 2. The records end there.
    head = Head(row["sequence"], row["hash"])
    if end < head.sequence:
        return Fault(
            chain, end + 1, "tail_cut", f"record {end + 1} is gone: the signed head is {head.sequence}"
        )
    if end > head.sequence:
        return Fault(
            chain, head.sequence + 1, "inserted", f"nothing was signed behind record {head.sequence}"
        )
    if walk.last.hash != head.hash:
        return Fault(
            chain, None, "rewritten", "the records follow from each other, but not to the signed head"
        )
    return None


def _is_signed(chain: str, row: Row, verifier: HeadVerifier) -> bool:
    # SQLite keeps whatever type somebody wrote.
    if not isinstance(row["hash"], bytes) or not isinstance(row["signature"], bytes):
        return False
    statement = head_statement(
        chain, Head(row["sequence"], row["hash"]), time=row["time"], epoch=row["epoch"]
    )
    return verifier.verify(row["kid"], statement, row["signature"])


def _anchor_fault(walk: _Walk, anchor: Head | None) -> Fault | None:
    if anchor is None or walk.hashes.get(anchor.sequence) == anchor.hash:
        return None
    end = walk.last.sequence
    if end < anchor.sequence:
        return Fault(
            walk.chain, end + 1, "older_copy", f"record {end + 1} was there: the anchor is {anchor.sequence}"
        )
    return Fault(
        walk.chain,
        None,
        "rewritten",
        f"record {anchor.sequence} is another one than when the anchor was taken",
    )


def _unmatched(walks: Mapping[str, _Walk]) -> Iterator[Fault]:
    """Chains whose start the service's chain noted and that are not there, or the other way round."""
    service = walks.get(SERVICE)
    if service is None or not service.records:
        if walks:
            yield Fault(SERVICE, 1, "chain_missing", "the service's chain is gone as a whole")
        return
    for chain, first_hash in service.started.items():
        begins = walks[chain].hashes.get(1) if chain in walks else None
        if chain not in walks or not walks[chain].records:
            yield Fault(
                chain, 1, "chain_missing", "the chain is gone as a whole: the service's chain noted its start"
            )
        elif chain in service.started_again:
            # A chain that somebody took away: the service then began it, and noted that, once more.
            yield Fault(chain, 1, "rewritten", "the service's chain noted the start of this one twice")
        elif begins is None or begins.hex() != first_hash:
            yield Fault(chain, 1, "rewritten", "record 1 is not the one that the service's chain noted")
    for chain in walks:
        if chain != SERVICE and chain not in service.started and service.fault is None:
            yield Fault(chain, 1, "chain_unknown", "the service's chain never noted the start of this one")


def _parsed(row: Row) -> Mapping[str, Any]:
    try:
        record = json.loads(row["record"])
    except (ValueError, TypeError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
