"""Who asked for what, and how was it decided? Append-only, in chains that show any change.

Each device has a chain, and so has the service. A record's hash covers its canonical bytes and the hash
before it; the last one, the head, is signed. The first record of a device's chain is noted in the service's
chain, so that a chain which is gone as a whole is missed. Only the newest head is signed and kept: an older
one would let its holder cut the tail.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from attestd.clock import rfc3339
from attestd.store import meta
from attestd.store.canonical import canonical_json
from attestd.store.engine import Transaction
from attestd.store.rows import insert

SERVICE = "service"
"""The chain of everything that is no device's."""

FIRST = bytes(32)
"""What stands for the hash before a chain's first record."""

Event = Literal["enroll", "activate", "challenge", "attest", "issue", "token", "request", "admin"]
Decision = Literal["accepted", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What is recorded. Secrets, tokens and nonces never are; what identifies them, hashed, may be.

    `code` is the wire's, `cause` the finer word; `policy` is "name@version"; `count` how many alike this
    record stands for.
    """

    event: Event
    decision: Decision
    code: str | None = None
    cause: str | None = None
    request_id: str | None = None
    device_id: str | None = None
    policy: str | None = None
    evidence_sha256: str | None = None
    count: int = 1
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON: whatever else helps who reads it.

    What a stranger chose may stand here; it cannot break the line.
    """

    def __post_init__(self) -> None:
        if self.event not in get_args(Event) or self.decision not in get_args(Decision):
            raise ValueError(f"no such event or decision: {self.event}, {self.decision}")


class HeadSigner(Protocol):
    """The service's audit key."""

    @property
    def kid(self) -> str: ...

    def sign(self, message: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: the sequence and hash of its last record."""

    sequence: int
    hash: bytes


BEGINNING = Head(0, FIRST)
"""Where a chain ends that has no record yet."""


def append(tx: Transaction, signer: HeadSigner, event: AuditEvent, *, chain: str | None, now: int) -> Head:
    """Record one event at the end of a chain: a device's identifier, or None for the service's."""
    return append_all(tx, signer, [event], chain=chain, now=now)


def append_all(
    tx: Transaction, signer: HeadSigner, events: Sequence[AuditEvent], *, chain: str | None, now: int
) -> Head:
    """Record events one behind the other under one signature; returns where the chain now ends."""
    if not events:
        raise ValueError("nothing to record")
    chain = chain or SERVICE
    before = _take_head(tx, chain)
    head, first = before, b""
    for event in events:
        head = _add(tx, event, chain=chain, before=head, now=now)
        first = first or head.hash
    _sign_head(tx, signer, chain, head, now=now)
    if before.sequence == 0 and chain != SERVICE:
        append(tx, signer, _chain_started(chain, first), chain=SERVICE, now=now)
    return head


def record_time(ms: int) -> str:
    """RFC 3339 with milliseconds, as records carry it."""
    return f"{rfc3339(ms)[:-1]}.{ms % 1000:03d}Z"


def link(previous: bytes, record: str) -> bytes:
    """The hash of a record behind its predecessor."""
    # A record of ours is ASCII; one that somebody damaged may not even be text.
    return hashlib.sha256(previous + record.encode("utf-8", "surrogateescape")).digest()


def head_statement(chain: str, head: Head, *, time: int, epoch: int) -> bytes:
    """What the signature of a head covers."""
    signed = {
        "chain": chain,
        "sequence": head.sequence,
        "hash": head.hash.hex(),
        "time": time,
        "epoch": epoch,
    }
    return canonical_json(signed).encode("ascii")


def _take_head(tx: Transaction, chain: str) -> Head:
    # Written before it is read, so that who appends to this chain meanwhile waits here and not at the end.
    row = tx.execute(
        """INSERT INTO audit_heads (chain, sequence, hash, time, epoch, kid, signature)
        VALUES (?, 0, ?, 0, 0, '', ?)
        ON CONFLICT (chain) DO UPDATE SET sequence = audit_heads.sequence RETURNING sequence, hash""",
        (chain, FIRST, b""),
    ).fetchone()
    return Head(row["sequence"], row["hash"])


def _add(tx: Transaction, event: AuditEvent, *, chain: str, before: Head, now: int) -> Head:
    sequence = before.sequence + 1
    named = {name: getattr(event, name) for name in AuditEvent.__slots__}
    record = canonical_json({**named, "chain": chain, "sequence": sequence, "time": record_time(now)})
    head = Head(sequence, link(before.hash, record))
    found_by = {name: named[name] for name in ("event", "decision", "code", "request_id", "device_id")}
    row = {"chain": chain, "sequence": sequence, "time": now, **found_by, "record": record, "hash": head.hash}
    insert(tx, "audit_records", row)
    return head


def _sign_head(tx: Transaction, signer: HeadSigner, chain: str, head: Head, *, now: int) -> None:
    epoch = meta.epoch(tx)
    signature = signer.sign(head_statement(chain, head, time=now, epoch=epoch))
    tx.execute(
        """UPDATE audit_heads SET sequence = ?, hash = ?, time = ?, epoch = ?, kid = ?, signature = ?
        WHERE chain = ?""",
        (head.sequence, head.hash, now, epoch, signer.kid, signature, chain),
    )


def _chain_started(chain: str, first: bytes) -> AuditEvent:
    details = {"chain_started": chain, "first_hash": first.hex()}
    return AuditEvent(event="enroll", decision="accepted", device_id=chain, details=details)
