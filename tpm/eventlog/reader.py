"""What events does a firmware log hold?

Formats: TCG PC Client Platform Firmware Profile 1.06, 10.2.1 (TCG_PCR_EVENT, SHA-1 only), 10.2.2
(TCG_PCR_EVENT2) and 10.4.5.1 (the header "Spec ID Event03"); UEFI 2.10, 38.4.2 for confidential machines.
Each length is compared with what remains before anything is taken; there is no recursion and nothing grows
with a number that the log merely states.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

from tpm.errors import StructureError
from tpm.eventlog.events import Event, EventLog, EventType, Format
from tpm.structures.algorithms import HASHES
from tpm.structures.pcrs import PCR_COUNT

SIZE_LIMIT = 16 * 1024 * 1024
"""Bytes. The largest firmware buffers known to us are 256 KiB."""

EVENTS_LIMIT = 20_000
ALGORITHMS_LIMIT = 16

_SIGNATURE = b"Spec ID Event03\0"
_LEGACY = struct.Struct("<II20sI")
_EVENT2 = struct.Struct("<III")
_ALGORITHM = struct.Struct("<H")
_SIZE = struct.Struct("<I")
_SPEC_ID = struct.Struct("<16sIBBBBI")
_SPEC_ALGORITHM = struct.Struct("<HH")
_UNKNOWN_DIGEST_LIMIT = 64
_HEADER_LIMIT = _SPEC_ID.size + ALGORITHMS_LIMIT * _SPEC_ALGORITHM.size + 1 + 255
_NO_ACTION = int(EventType.EV_NO_ACTION)
_RTMR_REGISTERS = range(1, 5)
"""RTMR 0 to 3; register 0 is the machine's own measurement, which nothing can extend."""


def read_log(raw: bytes) -> EventLog:
    """The events of a whole log. Nothing is decided here: not whether it replays, not what its data is
    worth.

    StructureError: "log_empty", "log_too_large", "too_many_events", "truncated" (also what trails and is no
    padding), "bad_header" (a Spec ID that contradicts itself), "digests_missing", "too_many_digests",
    "digest_repeated", "unknown_algorithm" (not announced), "bad_register".
    """
    # 1. There is a log, and it is no larger than a log can be.
    if not raw:
        raise StructureError("log_empty", "The log has no bytes; read binary_bios_measurements as root.")
    if len(raw) > SIZE_LIMIT:
        raise StructureError("log_too_large", f"The log has {len(raw)} bytes; at most {SIZE_LIMIT} are read.")
    # 2. Its first record says which format the others have.
    end = _padding_start(raw)
    if end == 0:
        raise StructureError("log_empty", "The log is an unused buffer: all of its bytes are equal.")
    first, offset = _legacy_event(raw, 0, 0)
    header = _header(first)
    # 3. The rest is events and, perhaps, the unused end of a buffer.
    events = [first]
    if header is None:
        _check_register(first, "sha1")
        while offset < end:
            if len(events) >= EVENTS_LIMIT:
                raise _too_many()
            event, offset = _legacy_event(raw, offset, len(events))
            _check_register(event, "sha1")
            events.append(event)
        return _log("sha1", ("sha1",), events, raw, offset)
    offset = _agile_events(raw, offset, end, header, events)
    return _log(header.format, tuple(header.names.values()), events, raw, offset)


def _log(format: Format, algorithms: tuple[str, ...], events: list[Event], raw: bytes, end: int) -> EventLog:
    return EventLog(format, algorithms, tuple(events), len(raw) - end)


@dataclass(frozen=True, slots=True)
class _Header:
    format: Format
    names: dict[int, str]
    sizes: dict[int, int]
    whole: struct.Struct
    """A record up to its data, with every announced digest in the announced order: nearly all are so."""
    pattern: tuple[int, ...]


def _padding_start(raw: bytes) -> int:
    """Where the run of equal 0x00 or 0xFF bytes at the end begins."""
    return min(len(raw.rstrip(b"\0")), len(raw.rstrip(b"\xff")))


def _legacy_event(raw: bytes, offset: int, number: int) -> tuple[Event, int]:
    """TCG_PCR_EVENT at `offset`, and the offset behind it."""
    try:
        register, kind, digest, size = _LEGACY.unpack_from(raw, offset)
    except struct.error:
        raise _truncated(number, offset + _LEGACY.size, len(raw)) from None
    start = offset + _LEGACY.size
    end = start + size
    if end > len(raw):
        raise _truncated(number, end, len(raw))
    return Event(number, register, kind, {"sha1": digest}, raw[start:end]), end


def _header(first: Event) -> _Header | None:
    """The header that the first record is; None when the log is of the legacy format."""
    if first.type != _NO_ACTION or first.data[:16] != _SIGNATURE:
        return None
    if not _SPEC_ID.size < len(first.data) <= _HEADER_LIMIT:
        raise _bad_header(f"it has {len(first.data)} bytes")
    return _read_header(first.register, first.data)


# The machines of a fleet have few different headers: small logs need not pay for reading them each time.
@lru_cache(maxsize=64)
def _read_header(register: int, data: bytes) -> _Header:
    _, _, minor, major, _, _, count = _SPEC_ID.unpack_from(data)
    if (major, minor) != (2, 0):
        raise _bad_header(f"it is of version {major}.{minor}, not 2.0")
    if not 1 <= count <= ALGORITHMS_LIMIT:
        raise _bad_header(f"it announces {count} algorithms")
    vendor = _SPEC_ID.size + count * _SPEC_ALGORITHM.size
    if vendor >= len(data) or vendor + 1 + data[vendor] != len(data):
        raise _bad_header("its lengths do not add up")
    names: dict[int, str] = {}
    sizes: dict[int, int] = {}
    for index in range(count):
        algorithm, size = _SPEC_ALGORITHM.unpack_from(data, _SPEC_ID.size + index * _SPEC_ALGORITHM.size)
        known = HASHES.get(algorithm)
        if algorithm in names:
            raise _bad_header(f"it announces algorithm 0x{algorithm:04x} twice")
        if not (0 < size <= _UNKNOWN_DIGEST_LIMIT if known is None else size == known.size):
            raise _bad_header(f"it gives algorithm 0x{algorithm:04x} digests of {size} bytes")
        names[algorithm] = f"0x{algorithm:04x}" if known is None else known.name
        sizes[algorithm] = size
    whole = struct.Struct("<III" + "".join(f"H{size}s" for size in sizes.values()) + "I")
    return _Header(_format(register, names), names, sizes, whole, tuple(names))


def _format(register: int, names: dict[int, str]) -> Format:
    """A TPM's log has its header in PCR 0; a confidential machine's in register 1, with SHA-384 alone."""
    if register == 0:
        return "crypto-agile"
    if register == 1 and list(names.values()) == ["sha384"]:
        return "ccel"
    raise _bad_header(f"it stands in register {register} and announces {', '.join(names.values())}")


def _agile_events(raw: bytes, offset: int, end: int, header: _Header, events: list[Event]) -> int:
    """Appends the TCG_PCR_EVENT2 records between `offset` and `end`; returns the offset behind the last."""
    unpack, size = header.whole.unpack_from, header.whole.size
    pattern, count, names = header.pattern, len(header.pattern), tuple(header.names.values())
    plain_registers = PCR_COUNT if header.format == "crypto-agile" else 0
    number, last = len(events), len(raw) - size
    while offset < end:
        if number >= EVENTS_LIMIT:
            raise _too_many()
        fields = unpack(raw, offset) if offset <= last else ()
        if fields and fields[2] == count and fields[3:-1:2] == pattern:
            start = offset + size
            offset = start + fields[-1]
            if offset > len(raw):
                raise _truncated(number, offset, len(raw))
            digests = dict(zip(names, fields[4:-1:2]))  # noqa: B905 (as many as the struct has)
            event = Event(number, fields[0], fields[1], digests, raw[start:offset])
        else:
            event, offset = _sparse_event(raw, offset, header, number)
        if event.register >= plain_registers:
            _check_register(event, header.format)
        events.append(event)
        number += 1
    return offset


def _sparse_event(raw: bytes, offset: int, header: _Header, number: int) -> tuple[Event, int]:
    """A record whose digests are some of those announced, in any order."""
    try:
        register, kind, count = _EVENT2.unpack_from(raw, offset)
        # Records without digests are what the header of a second log looks like from here.
        if not 1 <= count <= len(header.names):
            raise StructureError(
                "digests_missing" if count == 0 else "too_many_digests",
                f"Event {number} has {count} digests; the header announces {len(header.names)}.",
            )
        offset += _EVENT2.size
        digests: dict[str, bytes] = {}
        for _ in range(count):
            (algorithm,) = _ALGORITHM.unpack_from(raw, offset)
            name = header.names.get(algorithm)
            if name is None:
                raise StructureError(
                    "unknown_algorithm", f"Event {number} has a digest of 0x{algorithm:04x}, not announced."
                )
            if name in digests:
                raise StructureError("digest_repeated", f"Event {number} has two digests of {name}.")
            start = offset + _ALGORITHM.size
            offset = start + header.sizes[algorithm]
            digests[name] = raw[start:offset]
        (size,) = _SIZE.unpack_from(raw, offset)
    except struct.error:
        raise _truncated(number, len(raw) + 1, len(raw)) from None
    start = offset + _SIZE.size
    end = start + size
    if end > len(raw):
        raise _truncated(number, end, len(raw))
    return Event(number, register, kind, digests, raw[start:end]), end


def _check_register(event: Event, format: Format) -> None:
    """Only a record that extends nothing may name a register that does not exist, as Windows' do."""
    known = _RTMR_REGISTERS if format == "ccel" else range(PCR_COUNT)
    if event.type != _NO_ACTION and event.register not in known:
        raise StructureError("bad_register", f"Event {event.number} extends register {event.register}.")


def _too_many() -> StructureError:
    return StructureError("too_many_events", f"The log has more than {EVENTS_LIMIT} events.")


def _truncated(number: int, needed: int, found: int) -> StructureError:
    return StructureError(
        "truncated",
        f"Event {number} needs at least {needed} bytes of log; {found} were sent; the rest is no padding.",
    )


def _bad_header(why: str) -> StructureError:
    return StructureError("bad_header", f"The log's header is not to be believed: {why}.")
