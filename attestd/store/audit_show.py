"""What does the audit log say? Its records, oldest first, as far as somebody asks for them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attestd.store.engine import Transaction, Value

PAGE = 500

Record = dict[str, Any]

Place = tuple[int, str, int]
"""Time, chain and sequence of a record."""

BEGIN: Place = (-1, "", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records: those that meet every condition that is not None. `since` in milliseconds."""

    device_id: str | None = None
    event: str | None = None
    decision: str | None = None
    code: str | None = None
    request_id: str | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, and where the next page begins; `after` is None on the last one."""

    records: tuple[Record, ...]
    after: Place | None


def page(tx: Transaction, wanted: Wanted, after: Place = BEGIN) -> Page:
    """The records behind a place, as many as fit a page: a log of years does not fit into memory.

    Each page may be a transaction of its own: records are only ever appended, so none is lost or told twice.
    """
    where, parameters = _conditions(wanted)
    rows = tx.execute(
        f"""SELECT time, chain, sequence, record FROM audit_records
        WHERE (time, chain, sequence) > (?, ?, ?){where} ORDER BY time, chain, sequence LIMIT ?""",
        (*after, *parameters, PAGE),
    ).fetchall()
    last = (rows[-1]["time"], rows[-1]["chain"], rows[-1]["sequence"]) if len(rows) == PAGE else None
    return Page(tuple(json.loads(row["record"]) for row in rows), last)


def records(tx: Transaction, wanted: Wanted) -> Iterator[Record]:
    """All of them, page by page in one transaction."""
    after: Place | None = BEGIN
    while after is not None:
        found = page(tx, wanted, after)
        yield from found.records
        after = found.after


def newest(tx: Transaction, wanted: Wanted, limit: int) -> list[Record]:
    """The last ones up to that number, still oldest first."""
    where, parameters = _conditions(wanted)
    rows = tx.execute(
        f"""SELECT record FROM audit_records WHERE time >= 0{where}
        ORDER BY time DESC, chain DESC, sequence DESC LIMIT ?""",
        (*parameters, limit),
    ).fetchall()
    return [json.loads(row["record"]) for row in reversed(rows)]


def _conditions(wanted: Wanted) -> tuple[str, tuple[Value, ...]]:
    equal = {name: getattr(wanted, name) for name in ("device_id", "event", "decision", "code", "request_id")}
    asked = {name: value for name, value in equal.items() if value is not None}
    where = "".join(f" AND {name} = ?" for name in asked)
    if wanted.since is None:
        return where, tuple(asked.values())
    return f"{where} AND time >= ?", (*asked.values(), wanted.since)
