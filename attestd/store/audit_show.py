"""What does the audit log say? Its records, oldest first, as far as somebody asks for them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attestd.store.engine import Transaction, Value

PAGE = 500

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records: those that meet every condition that is not None. `since` in milliseconds."""

    device_id: str | None = None
    event: str | None = None
    decision: str | None = None
    code: str | None = None
    request_id: str | None = None
    since: int | None = None


def records(tx: Transaction, wanted: Wanted) -> Iterator[Record]:
    """All of them, a page at a time: a log of years does not fit into memory."""
    where, parameters = _conditions(wanted)
    after: tuple[Value, ...] = (-1, "", 0)
    while True:
        rows = tx.execute(
            f"""SELECT time, chain, sequence, record FROM audit_records
            WHERE (time, chain, sequence) > (?, ?, ?){where} ORDER BY time, chain, sequence LIMIT ?""",
            (*after, *parameters, PAGE),
        ).fetchall()
        for row in rows:
            yield json.loads(row["record"])
        if len(rows) < PAGE:
            return
        after = (rows[-1]["time"], rows[-1]["chain"], rows[-1]["sequence"])


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
