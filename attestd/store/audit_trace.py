"""How did this token, credential, attestation or request come about, from the machine's boot to the call?

The audit log has it all; the tables of what is still kept add names, and what has ended since. Only what a
device has proven (it stands on the device's own chain) explains anything else.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from attestd.store import credentials, devices, policies, tokens
from attestd.store.audit import record_time
from attestd.store.audit_show import Record
from attestd.store.engine import Transaction

Step = dict[str, Any]
"""What happened. `step` is "enrolled", "attested", "credential", "sealed_key", "token", "revoked", "called",
or the event of a record that is none of these.
"""

MOST = 10_000
"""Records of one trace; a credential's tokens, and what was made of them, are far fewer."""

_ID = re.compile(r"[A-Za-z0-9._~:-]{1,256}")
_NAMES = {
    "attest": ("attestation_id",),
    "issue": ("credential_id",),
    "token": ("token_id", "revoked"),
    "request": ("called",),
}
"""By event, the members of its details that say what the record is about."""

_ADMITS = ("device approve", "device unban")

Place = tuple[str, int]


def trace(tx: Transaction, wanted: str) -> tuple[Step, ...]:
    """The steps, oldest first; none for an identifier that nothing was recorded about.

    `wanted`: the `jti` of a token or credential, a certificate's serial number in hex, an attestation's or a
    request's identifier.
    """
    if _ID.fullmatch(wanted) is None:
        return ()
    about = [record for record in _find(tx, wanted) if _is_about(record, wanted)]
    found: dict[Place, Record] = {}
    for follow in (_causes, _effects):
        pending = list(about)
        while pending and len(found) < MOST:
            record = pending.pop()
            found[_place(record)] = record
            pending += [each for each in follow(tx, record) if _place(each) not in found]
    ordered = sorted(found.values(), key=lambda record: (record["time"], _place(record)))
    return tuple(_step(tx, record) for record in ordered)


# --- which records belong together -----------------------------------------------------------------


def _causes(tx: Transaction, record: Record) -> Iterator[Record]:
    """What had to happen before: for a token its parents, the credential and the posture; for those the
    attestation; for that the machine's enrolment and admission. And what ended the credential."""
    details, device = record["details"], record["device_id"]
    if not _is_proven(record):
        return
    match record["event"]:
        case "token":
            yield from _named(tx, device, "issue", "credential_id", details.get("credential_id"))
            yield from _named(tx, device, "attest", "attestation_id", details.get("attestation_id"))
            for parent in details.get("parents", ()):
                yield from _named(tx, None, "token", "token_id", parent)
        case "request":
            yield from _named(tx, device, "token", "token_id", details.get("called"))
        case "issue":
            yield from _named(tx, device, "attest", "attestation_id", details.get("attestation_id"))
            yield from _ending(tx, record)
        case "attest":
            yield from _activation(tx, record)
            yield from _admission(tx, record)


def _effects(tx: Transaction, record: Record) -> Iterator[Record]:
    """What came of it: credentials, their tokens, what those were exchanged for, and who ended them."""
    details, device = record["details"], record["device_id"]
    if not _is_proven(record) or record["decision"] != "accepted":
        return
    match record["event"]:
        case "attest":
            yield from _named(tx, device, "issue", "attestation_id", details.get("attestation_id"))
        case "issue":
            yield from _named(tx, device, "token", "credential_id", details.get("credential_id"))
        case "token":
            token_id = details.get("token_id")
            yield from _named(tx, None, "token", "parents", token_id)
            yield from _named(tx, None, "token", "revoked", token_id)
            yield from _named(tx, device, "request", "called", token_id)


def _activation(tx: Transaction, record: Record) -> Iterator[Record]:
    """The last time before that the machine's TPM proved itself and its attestation key."""
    row = tx.execute(
        """SELECT record FROM audit_records
        WHERE chain = ? AND event = 'activate' AND decision = 'accepted' AND sequence < ?
        ORDER BY sequence DESC LIMIT 1""",
        (record["chain"], record["sequence"]),
    ).fetchone()
    if row is not None:
        yield json.loads(row["record"])


def _admission(tx: Transaction, record: Record) -> Iterator[Record]:
    """The last time before that an operator let the machine in; none where the policy of admission did."""
    rows = tx.execute(
        """SELECT record FROM audit_records
        WHERE chain = ? AND event = 'admin' AND decision = 'accepted' AND sequence < ?
        ORDER BY sequence DESC""",
        (record["chain"], record["sequence"]),
    ).fetchall()
    found = (json.loads(row["record"]) for row in rows)
    yield from islice((each for each in found if each["details"].get("verb") in _ADMITS), 1)


def _ending(tx: Transaction, record: Record) -> Iterator[Record]:
    """What was recorded about the machine in the moment in which the credential was ended."""
    kept = credentials.get(tx, str(record["details"].get("credential_id")))
    if kept is None or kept.revoked_at is None:
        return
    rows = tx.execute(
        "SELECT record FROM audit_records WHERE device_id = ? AND time = ? AND event IN ('attest', 'admin')",
        (kept.device_id, kept.revoked_at),
    ).fetchall()
    yield from (json.loads(row["record"]) for row in rows)


def _named(
    tx: Transaction, device_id: str | None, event: str, member: str, value: str | None
) -> Iterator[Record]:
    """Proven records of this event whose details have this value, or have it in a list."""
    for record in [] if value is None else _find(tx, value, device_id):
        held = record["details"].get(member)
        if (
            record["event"] == event
            and _is_proven(record)
            and value in (held if isinstance(held, list) else [held])
        ):
            yield record


def _find(tx: Transaction, text: str, device_id: str | None = None) -> list[Record]:
    """Records in which this text is a whole value somewhere, oldest first. It reads the log, or one device's
    part of it."""
    where, parameters = ("", ()) if device_id is None else (" AND device_id = ?", (device_id,))
    rows = tx.execute(
        f"""SELECT record FROM audit_records WHERE record LIKE ?{where}
        ORDER BY time, chain, sequence LIMIT {MOST}""",
        (f'%"{text}"%', *parameters),
    ).fetchall()
    return [json.loads(row["record"]) for row in rows]


def _is_about(record: Record, wanted: str) -> bool:
    if record["request_id"] == wanted:
        return True
    names = _NAMES.get(record["event"], ())
    return _is_proven(record) and any(record["details"].get(name) == wanted for name in names)


def _is_proven(record: Record) -> bool:
    return bool(record["chain"] == record["device_id"])


def _place(record: Record) -> Place:
    return record["chain"], record["sequence"]


# --- what each of them says ------------------------------------------------------------------------


def _step(tx: Transaction, record: Record) -> Step:
    """The record's own members, with what is kept elsewhere about what it names."""
    details = dict(record["details"])
    told = _TELLERS.get((record["event"], record["decision"]), _other)(tx, record, details)
    device = None if record["device_id"] is None else devices.find(tx, record["device_id"])
    common = ("time", "decision", "code", "cause", "request_id", "device_id", "policy", "evidence_sha256")
    return {
        "step": told.pop("step", record["event"]),
        **{name: record[name] for name in common},
        "device_name": None if device is None else device.name,
        "policy_digest": _policy_digest(tx, record["policy"]),
        **told,
        "chain": record["chain"],
        "sequence": record["sequence"],
    }


def _enrolled(tx: Transaction, record: Record, details: Step) -> Step:
    return {"step": "enrolled", **details}


def _attested(tx: Transaction, record: Record, details: Step) -> Step:
    return {"step": "attested", **details}


def _issued(tx: Transaction, record: Record, details: Step) -> Step:
    if "credential_id" not in details:
        return {"step": "sealed_key", **details}
    kept = credentials.get(tx, details["credential_id"])
    return {"step": "credential", **_timed(details), **_ended(kept)}


def _token(tx: Transaction, record: Record, details: Step) -> Step:
    if "revoked" in details:
        return {"step": "revoked", **details}
    kept = tokens.get(tx, details["token_id"])
    parsed = {name: json.loads(details[name] or "null") for name in _PARSED if name in details}
    return {"step": "token", **_timed(details), **parsed, **_ended(kept)}


def _called(tx: Transaction, record: Record, details: Step) -> Step:
    return {"step": "called", "count": record["count"], **details}


def _other(tx: Transaction, record: Record, details: Step) -> Step:
    return details


_TELLERS: dict[tuple[str, str], Callable[[Transaction, Record, Step], Step]] = {
    ("activate", "accepted"): _enrolled,
    ("attest", "accepted"): _attested,
    ("attest", "refused"): _attested,
    ("issue", "accepted"): _issued,
    ("token", "accepted"): _token,
    ("request", "accepted"): _called,
}
_PARSED = ("actors", "confirmation", "authorization_details")
"""Members of a token's record that are JSON themselves."""


def _timed(details: Step) -> Step:
    return {**details, "expires_at": record_time(details["expires_at"])}


def _ended(kept: credentials.Issued | tokens.Token | None) -> Step:
    """When and why it was ended before its time; nothing is known of what is not kept any more."""
    if kept is None or kept.revoked_at is None:
        return {"ended_at": None, "ended_because": None}
    return {"ended_at": record_time(kept.revoked_at), "ended_because": kept.revoked_reason}


def _policy_digest(tx: Transaction, label: str | None) -> str | None:
    name, _, version = (label or "").rpartition("@")
    found = policies.find(tx, name, int(version)) if name and version.isdigit() else None
    return None if found is None else found.digest
