"""What did userspace measure after the firmware's log ended?

systemd writes /run/log/systemd/tpm2-measure.log as a JSON text sequence (RFC 7464): a record separator, one
object, a line feed. Each object names a register or an NV index, its digests, and a description. The order
of the lines is the order of the extensions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from tpm.errors import StructureError
from tpm.eventlog.events import Event, EventType
from tpm.eventlog.findings import Finding
from tpm.structures.algorithms import hash_by_name
from tpm.structures.pcrs import PCR_COUNT

SIZE_LIMIT = 4 * 1024 * 1024
RECORDS_LIMIT = 10_000
RECORD_LIMIT = 64 * 1024

_SEPARATOR = b"\x1e"
_PLACES = ("pcr", "nv_index", "rtmr")
_BANKS = ("sha1", "sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class UserspaceRecord:
    """One measurement. Only the digests are authenticated, as far as the register replays."""

    register: int | None
    """None: extended into an NV index, which no quote of registers covers."""
    digests: Mapping[str, bytes]
    text: str
    """What systemd says that it measured; the measured bytes themselves only where the digest agrees."""
    kind: str
    """systemd's eventType, such as "phase", or ""."""
    boot_id: str


@dataclass(frozen=True, slots=True)
class UserspaceLog:
    """All records, in the order in which they were written."""

    records: tuple[UserspaceRecord, ...]
    findings: tuple[Finding, ...]

    def events(self, first: int) -> tuple[Event, ...]:
        """The records that extend a register as events, numbered from `first`."""
        extending = [one for one in self.records if one.register is not None]
        return tuple(
            Event(
                first + place,
                one.register or 0,
                int(EventType.USERSPACE),
                one.digests,
                one.text.encode(),
            )
            for place, one in enumerate(extending)
        )


def read_userspace(raw: bytes) -> UserspaceLog:
    """The records of a whole log; an empty one has none. StructureError "userspace_log" says what is wrong
    where.

    Members that we do not know are left alone, for systemd adds some with every year; what we do read must
    be as it should.
    """
    # 1. It is no larger than such a log can be.
    if len(raw) > SIZE_LIMIT:
        raise _wrong(f"it has {len(raw)} bytes; at most {SIZE_LIMIT} are read")
    lines = raw.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if len(lines) > RECORDS_LIMIT:
        raise _wrong(f"it has more than {RECORDS_LIMIT} records")
    # 2. Every line is one record.
    records = tuple(_record(line, number) for number, line in enumerate(lines, 1))
    # 3. All were written in one boot, or somebody should know.
    boots = {one.boot_id for one in records if one.boot_id}
    findings: tuple[Finding, ...] = ()
    if len(boots) > 1:
        detail = f"The userspace log tells of {len(boots)} boots."
        findings = (Finding("boot_id_mixed", detail),)
    return UserspaceLog(records, findings)


def _record(line: bytes, number: int) -> UserspaceRecord:
    if len(line) > RECORD_LIMIT:
        raise _wrong(f"record {number} has {len(line)} bytes; at most {RECORD_LIMIT} are read")
    value = _object(line.removeprefix(_SEPARATOR), number)
    content = value.get("content", {})
    if not isinstance(content, dict):
        raise _wrong(f"the content of record {number} is not an object")
    register = _register(value, number)
    return UserspaceRecord(
        register,
        _digests(value.get("digests"), number),
        _text(content, "string", number),
        _text(content, "eventType", number),
        _text(content, "bootId", number),
    )


def _object(text: bytes, number: int) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member is there twice")
        return found

    try:
        value = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else type(error).__name__
        raise _wrong(f"record {number} is not a JSON object ({why})") from None
    if not isinstance(value, dict):
        raise _wrong(f"record {number} is not a JSON object")
    return value


def _register(value: Mapping[str, Any], number: int) -> int | None:
    """The register: the PCR, or of a confidential machine's log RTMR + 1; None for an NV index."""
    places = [place for place in _PLACES if place in value]
    if len(places) != 1:
        named = "nv_index" if _names_nv_index(value) and not places else None
        if named is None:
            raise _wrong(f"record {number} names {' and '.join(places) or 'no register'}")
        return None
    place = value[places[0]]
    limit = {"pcr": PCR_COUNT, "rtmr": 4, "nv_index": 1 << 32}[places[0]]
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < limit:
        raise _wrong(f"record {number} has no usable {places[0]}")
    return {"pcr": place, "rtmr": place + 1}.get(places[0])


def _names_nv_index(value: Mapping[str, Any]) -> bool:
    content = value.get("content")
    return isinstance(content, dict) and isinstance(content.get("nvIndexName"), str)


def _digests(value: Any, number: int) -> Mapping[str, bytes]:
    if not isinstance(value, list) or not value or len(value) > 16:
        raise _wrong(f"record {number} has no list of digests")
    found: dict[str, bytes] = {}
    for one in value:
        name = one.get("hashAlg") if isinstance(one, dict) else None
        digest = one.get("digest") if isinstance(one, dict) else None
        if not isinstance(name, str) or not isinstance(digest, str):
            raise _wrong(f"record {number} has a digest without algorithm or value")
        if name in found:
            raise _wrong(f"record {number} has two digests of one algorithm")
        found[name] = _hex(digest, number)
        if name in _BANKS and len(found[name]) != hash_by_name(name).size:
            raise _wrong(f"record {number} has a digest of the wrong length")
    return {name: digest for name, digest in found.items() if name in _BANKS}


def _hex(digest: str, number: int) -> bytes:
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        raw = b""
    # `fromhex` skips blanks; what is written back must be what was read.
    if raw.hex() != digest.lower() or not raw:
        raise _wrong(f"record {number} has a digest that is not hexadecimal")
    return raw


def _text(content: Mapping[str, Any], member: str, number: int) -> str:
    value = content.get(member, "")
    if not isinstance(value, str) or (not value.isprintable() and _has_surrogates(value)):
        raise _wrong(f"{member} of record {number} is not a string of characters")
    return value


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _wrong(why: str) -> StructureError:
    return StructureError("userspace_log", f"The userspace log cannot be read: {why}.")
