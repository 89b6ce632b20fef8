"""Which machines are known, who may speak for each, and how did it last look?"""

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal, get_args

from attestd.store.engine import Row, Transaction
from attestd.store.rows import columns
from attestd.store.rows import insert as insert_row
from tpm.verify.continuity import Baseline

State = Literal["pending", "active", "banned", "retired"]
Assurance = Literal["ek_verified", "allow_listed", "first_use", "emulated"]
Verdict = Literal["accepted", "refused"]

_STATES, _ASSURANCES = frozenset(get_args(State)), frozenset(get_args(Assurance))
_IDENTIFIER = re.compile(r"[0-9a-f]{64}", re.ASCII)
_U64 = frozenset({"clock", "firmware_version", "judged_clock"})
SHORT_NAME = 12
"""Hexadecimal digits of the identifier that name a device until an operator does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One machine.

    Keys are TPM2B_PUBLIC, certificates DER, names and digests lower-case hex, times milliseconds.

    `ek_public` and `ak_public` are None for a device that was imported and has not enrolled yet. The clock
    baseline (`reset_count` to `safe`) is None before the first accepted quote. `judged_…` is the mark below
    which evidence is stale: the counters and clock of the last quote judged, and when that was.
    After `rebase` the mark has its `judged_at` alone: quotes for older nonces are stale, whatever
    they count.
    """

    device_id: str
    state: State
    assurance: Assurance
    created_at: int
    updated_at: int
    name: str = ""
    """Unique. Left empty on insert, the first digits of the identifier that are free."""
    manufacturer: str | None = None
    model: str | None = None
    version: str | None = None
    ek_public: bytes | None = None
    ek_certificate: bytes | None = None
    ek_chain: tuple[bytes, ...] = ()
    root_sha256: str | None = None
    ak_public: bytes | None = None
    ak_name: str | None = None
    hostname: str | None = None
    """What the device calls itself: for display only."""
    labels: Mapping[str, str] = field(default_factory=dict)
    reset_count: int | None = None
    restart_count: int | None = None
    clock: int | None = None
    firmware_version: int | None = None
    boot_id: str | None = None
    safe: bool | None = None
    judged_reset: int | None = None
    judged_restart: int | None = None
    judged_clock: int | None = None
    judged_at: int | None = None
    posture: Verdict | None = None
    posture_attestation: str | None = None
    posture_at: int | None = None
    posture_until: int | None = None
    revision: int = 1
    """One more with every change: what was judged is still so if this is still the same."""

    @property
    def baseline(self) -> Baseline | None:
        """What the last accepted quote said of the TPM's clock, which later quotes continue."""
        if self.reset_count is None or self.restart_count is None or self.clock is None:
            return None
        firmware, safe = self.firmware_version or 0, self.safe is not False
        return Baseline(self.reset_count, self.restart_count, self.clock, firmware, self.boot_id, safe)

    def __post_init__(self) -> None:
        if _IDENTIFIER.fullmatch(self.device_id) is None:
            raise ValueError(f"{self.device_id!r} is no device identifier")
        if self.state not in _STATES or self.assurance not in _ASSURANCES:
            raise ValueError(f"no such state or assurance: {self.state}, {self.assurance}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What a completed enrolment says of a device: its keys, who vouches for them, how it calls itself."""

    assurance: Assurance
    ek_public: bytes
    ak_public: bytes
    ak_name: str
    ek_certificate: bytes | None = None
    ek_chain: tuple[bytes, ...] = ()
    root_sha256: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    version: str | None = None
    hostname: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The last judged quote, accepted or refused: evidence below it is stale."""

    judged_reset: int
    judged_restart: int
    judged_clock: int
    judged_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """The last verdict on a device, and until when an accepted one counts."""

    posture: Verdict
    posture_attestation: str
    posture_at: int
    posture_until: int | None


def find(tx: Transaction, device_id: str) -> Device | None:
    return _one(tx, "device_id", device_id)


def resolve(tx: Transaction, identifier_or_name: str) -> Device | None:
    """What an operator typed. No name is an identifier, so this is never ambiguous."""
    by_id = _IDENTIFIER.fullmatch(identifier_or_name) is not None
    return _one(tx, "device_id" if by_id else "name", identifier_or_name)


def find_by_ak_name(tx: Transaction, ak_name: str) -> Device | None:
    """Whose attestation key is it? `ak_name` in hex."""
    return _one(tx, "ak_name", ak_name)


def list_all(
    tx: Transaction, *, state: State | None = None, labels: Mapping[str, str] | None = None
) -> list[Device]:
    """The devices in that state that carry all of those labels, oldest first."""
    where, parameters = ("WHERE state = ?", (state,)) if state is not None else ("", ())
    rows = tx.execute(f"SELECT * FROM devices {where} ORDER BY created_at, device_id", parameters).fetchall()
    labelled: dict[str, dict[str, str]] = {}
    for label in tx.execute(
        "SELECT device_id, key, value FROM device_labels ORDER BY device_id, key"
    ).fetchall():
        labelled.setdefault(label["device_id"], {})[label["key"]] = label["value"]
    wanted = set((labels or {}).items())
    found = (_device(row, labelled.get(row["device_id"], {})) for row in rows)
    return [device for device in found if wanted <= set(device.labels.items())]


def count_pending(tx: Transaction) -> int:
    """Devices that wait for an operator's approval."""
    return int(tx.execute("SELECT COUNT(*) AS n FROM devices WHERE state = 'pending'").fetchone()["n"])


def count_by_state(tx: Transaction) -> Mapping[str, int]:
    """How many devices are in each state that occurs."""
    rows = tx.execute("SELECT state, COUNT(*) AS n FROM devices GROUP BY state").fetchall()
    return {row["state"]: int(row["n"]) for row in rows}


def insert(tx: Transaction, device: Device) -> Device:
    """Add a device that is not there yet; returns it as kept, with its name."""
    kept = device if device.name else replace(device, name=_free_name(tx, device.device_id))
    insert_row(
        tx,
        "devices",
        columns(
            {each.name: getattr(kept, each.name) for each in fields(kept) if each.name != "labels"}, _U64
        ),
    )
    _put_labels(tx, kept.device_id, kept.labels)
    return kept


def enrol(tx: Transaction, device_id: str, enrolment: Enrolment, now: int) -> bool:
    """Give a known device these keys: its first, or a rotation.

    State, name, labels and clock stay, the old AK ends.

    False if another device holds the AK, or the device is not there.
    """
    holder = find_by_ak_name(tx, enrolment.ak_name)
    if holder is not None and holder.device_id != device_id:
        return False
    return _update(tx, device_id, now, asdict(enrolment))


def set_state(tx: Transaction, device_id: str, state: State, now: int) -> bool:
    if state not in _STATES:
        raise ValueError(f"no such state: {state}")
    return _update(tx, device_id, now, {"state": state})


def set_labels(tx: Transaction, device_id: str, changes: Mapping[str, str], now: int) -> bool:
    """Set these labels and leave the others; an empty value removes its label."""
    if not _update(tx, device_id, now, {}):
        return False
    for key in changes:
        tx.execute("DELETE FROM device_labels WHERE device_id = ? AND key = ?", (device_id, key))
    _put_labels(tx, device_id, {key: value for key, value in changes.items() if value})
    return True


def rename(tx: Transaction, device_id: str, name: str, now: int) -> bool:
    """False if the name is another device's, is spelled like an identifier, or the device is not there.

    Which characters a name may have is not checked here.
    """
    if not name or _IDENTIFIER.fullmatch(name) is not None:
        return False
    holder = resolve(tx, name)
    if holder is not None and holder.device_id != device_id:
        return False
    return _update(tx, device_id, now, {"name": name})


def record_judged(
    tx: Transaction,
    device_id: str,
    mark: Mark,
    *,
    now: int,
    posture: Posture | None = None,
    baseline: Baseline | None = None,
) -> bool:
    """A quote was judged: the mark moves, the posture if the policy spoke, the baseline if it accepted."""
    changed: dict[str, object] = asdict(mark)
    for part in (posture, baseline):
        if part is not None:
            changed |= asdict(part)
    return _update(tx, device_id, now, changed)


def rebase(tx: Transaction, device_id: str, now: int) -> bool:
    """The operator says that the TPM was cleared: a quote for a nonce younger than this may count anew.

    What was judged of IMA's list is forgotten too: the counters that named its boot may come again.
    """
    tx.execute("DELETE FROM ima_marks WHERE device_id = ?", (device_id,))
    forgotten = ("reset_count", "restart_count", "clock", "firmware_version", "boot_id", "safe")
    mark: dict[str, object] = {"judged_reset": None, "judged_restart": None, "judged_clock": None}
    return _update(tx, device_id, now, dict.fromkeys(forgotten) | mark | {"judged_at": now})


def delete_pending_older_than(tx: Transaction, before: int) -> list[str]:
    """Forget devices that came before that time and still wait for approval; returns their identifiers."""
    rows = tx.execute(
        """DELETE FROM devices WHERE state = 'pending' AND created_at < ? AND ak_public IS NOT NULL
        RETURNING device_id""",
        (before,),
    ).fetchall()
    return sorted(row["device_id"] for row in rows)


def _one(tx: Transaction, column: str, value: str) -> Device | None:
    row = tx.execute(f"SELECT * FROM devices WHERE {column} = ?", (value,)).fetchone()
    if row is None:
        return None
    labels = tx.execute(
        "SELECT key, value FROM device_labels WHERE device_id = ? ORDER BY key", (row["device_id"],)
    ).fetchall()
    return _device(row, {label["key"]: label["value"] for label in labels})


def _update(tx: Transaction, device_id: str, now: int, changed: Mapping[str, object]) -> bool:
    row = columns(changed, _U64) | {"updated_at": now}
    assignments = ", ".join(f"{column} = ?" for column in row)
    done = tx.execute(
        f"UPDATE devices SET {assignments}, revision = revision + 1 WHERE device_id = ?",
        (*row.values(), device_id),
    )
    return done.rowcount == 1


def _put_labels(tx: Transaction, device_id: str, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        insert_row(tx, "device_labels", {"device_id": device_id, "key": key, "value": value})


def _free_name(tx: Transaction, device_id: str) -> str:
    names = (device_id[:length] for length in range(SHORT_NAME, len(device_id)))
    return next(name for name in names if resolve(tx, name) is None)


def _device(row: Row, labels: Mapping[str, str]) -> Device:
    values = dict(row)
    for name in _U64:
        values[name] = None if values[name] is None else int(values[name], 16)
    values["ek_chain"] = tuple(b64decode(each) for each in json.loads(values["ek_chain"]))
    values["safe"] = None if values["safe"] is None else bool(values["safe"])
    return Device(**values, labels=labels)
