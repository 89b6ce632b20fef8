"""Does the reader take what firmware writes, and nothing that is not a whole log?"""

import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest

from tests.tpm.eventlog.logs import IPL, NO_ACTION, Logged, LogMaker, agile, legacy, secure_boot_log, spec_id
from tests.tpm.vectors import vectors
from tpm.errors import StructureError
from tpm.eventlog import reader
from tpm.eventlog.reader import read_log

BANKS = ("sha1", "sha256")


def header(data: bytes | None = None, register: int = 0) -> bytes:
    return legacy(Logged(register, NO_ACTION, spec_id(BANKS) if data is None else data))


def event(register: int = 4, kind: int = IPL, data: bytes = b"data") -> bytes:
    return agile(Logged(register, kind, data), BANKS)


def counted(digests: int) -> bytes:
    """An event as far as it says how many digests follow."""
    return struct.pack("<III", 4, IPL, digests)


def reason_of(raw: bytes) -> str:
    with pytest.raises(StructureError) as caught:
        read_log(raw)
    return caught.value.reason


@pytest.mark.parametrize(
    ("format", "banks"), [("sha1", ("sha1",)), ("crypto-agile", BANKS), ("ccel", ("sha384",))]
)
def test_each_format_is_read_whole(format: str, banks: tuple[str, ...]) -> None:
    maker = LogMaker(banks, format).add(1, IPL, b"one").add(2, IPL, b"").add(3, IPL, b"three")
    log = maker.read()
    first = 0 if format == "sha1" else 1
    assert log.format == format
    assert log.algorithms == banks
    assert [(one.register, one.data) for one in log.events[first:]] == [(1, b"one"), (2, b""), (3, b"three")]
    assert [one.number for one in log.events] == list(range(len(log.events)))


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("size", [1, 7, 8, 64, 4096])
def test_the_unused_end_of_a_buffer_is_padding(fill: bytes, size: int) -> None:
    log = read_log(secure_boot_log().write() + fill * size)
    assert log.padding == size
    assert len(log.events) == len(secure_boot_log().records) + 1


@pytest.mark.parametrize(
    "end", [b"\0\xff", b"\xff" * 9 + b"\0" * 9, b"\xde\xad\xbe\xef" * 3, b"\0" * 8 + b"\x01"]
)
def test_what_trails_and_is_no_padding_is_refused(end: bytes) -> None:
    raw = secure_boot_log().write()
    read_log(raw)
    assert reason_of(raw + end) in ("truncated", "too_many_digests", "digests_missing")


@pytest.mark.parametrize("raw", [b"", bytes(4096), b"\xff" * 4096])
def test_an_empty_log_is_refused(raw: bytes) -> None:
    assert reason_of(raw) == "log_empty"


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "event size": (
        "truncated",
        lambda: header() + event()[:-8] + struct.pack("<I", 0xFFFFFFFF) + b"data",
    ),
    "legacy event size": ("truncated", lambda: struct.pack("<II20sI", 4, IPL, bytes(20), 0xFFFFFFFF)),
    "digest count": (
        "too_many_digests",
        lambda: header() + struct.pack("<III", 4, IPL, 0xFFFFFFFF) + event(),
    ),
    "one digest too many": (
        "too_many_digests",
        lambda: header() + struct.pack("<III", 4, IPL, 3) + bytes(200) + b"\1",
    ),
    "no digest": ("digests_missing", lambda: header() + struct.pack("<IIII", 4, IPL, 0, 0) + event()),
    "unknown algorithm": (
        "unknown_algorithm",
        lambda: header() + event().replace(b"\x0b\0", b"\x77\x77", 1),
    ),
    "digest twice": (
        "digest_repeated",
        lambda: (
            header() + struct.pack("<III", 4, IPL, 2) + (b"\x04\0" + bytes(20)) * 2 + b"\0\0\0\0" + event()
        ),
    ),
    "digest size of the header": (
        "bad_header",
        lambda: header(spec_id(BANKS).replace(b"\x0b\0\x20\0", b"\x0b\0\x21\0")) + event(),
    ),
    "huge digest size": (
        "bad_header",
        lambda: header(spec_id(BANKS).replace(b"\x0b\0\x20\0", b"\x12\0\xff\xff")) + event(),
    ),
    "algorithms of the header": (
        "bad_header",
        lambda: header(spec_id(BANKS)[:24] + struct.pack("<I", 0xFFFFFFFF) + spec_id(BANKS)[28:]) + event(),
    ),
    "no algorithm": ("bad_header", lambda: header(spec_id(())) + event()),
    "algorithm twice": ("bad_header", lambda: header(spec_id(("sha256", "sha256"))) + event()),
    "vendor size": ("bad_header", lambda: header(spec_id(BANKS)[:-1] + b"\xff") + event()),
    "version": ("bad_header", lambda: header(spec_id(BANKS, version=(2, 1))) + event()),
    "header in register 5": ("bad_header", lambda: header(register=5) + event()),
    "header in register 1 with two banks": ("bad_header", lambda: header(register=1) + event()),
    "PCR 24": ("bad_register", lambda: header() + event(24)),
    "PCR 2^32-1": ("bad_register", lambda: header() + event(0xFFFFFFFF)),
    "legacy PCR 24": ("bad_register", lambda: legacy(Logged(24, IPL, b""))),
    "RTMR that is none": ("bad_register", lambda: LogMaker(("sha384",), "ccel").add(5, IPL, b"").write()),
    "the machine's own measurement": (
        "bad_register",
        lambda: LogMaker(("sha384",), "ccel").add(0, IPL, b"").write(),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_el_7_numbers_that_lie_are_refused_with_flat_memory(name: str) -> None:
    wanted, make = HOSTILE[name]
    raw = make()
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        assert reason_of(raw) == wanted
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < 0.1


def test_el_7_twin_honest_numbers_are_read() -> None:
    assert len(read_log(header() + event() + event(23)).events) == 3
    assert len(read_log(header(spec_id(BANKS, vendor=b"maker")) + event()).events) == 2


def test_el_7_nested_structures_of_data_cost_nothing() -> None:
    nested = b""
    for _ in range(20_000):
        nested = struct.pack("<II", 0x40010001, 0) + nested
    raw = header() + agile(Logged(12, 6, nested), BANKS)
    assert read_log(raw).events[1].data == nested


def test_a_record_that_extends_nothing_may_name_no_register() -> None:
    log = read_log(header() + agile(Logged(0xFFFFFFFF, NO_ACTION, b"key"), BANKS))
    assert log.events[1].register == 0xFFFFFFFF


def test_a_bank_that_we_cannot_compute_is_carried_and_not_replayed() -> None:
    announced = spec_id(BANKS).replace(b"\x04\0\x14\0", b"\x12\0\x20\0")
    record = struct.pack("<III", 4, IPL, 2) + b"\x12\0" + bytes(32) + b"\x0b\0" + bytes(32) + bytes(4)
    log = read_log(header(announced) + record + event_of("sha256"))
    assert log.algorithms == ("0x0012", "sha256")
    assert len(log.events) == 3


def event_of(bank: str) -> bytes:
    return agile(Logged(4, IPL, b"x"), (bank,))


def test_a_log_larger_than_any_is_refused_before_it_is_read() -> None:
    assert reason_of(bytes(reader.SIZE_LIMIT) + b"\x01") == "log_too_large"
    assert read_log(secure_boot_log().write() + bytes(100_000)).padding == 100_000


@pytest.mark.parametrize("format", ["sha1", "crypto-agile"])
def test_events_are_counted(format: str) -> None:
    banks = ("sha1",)
    whole = 0 if format == "sha1" else 1
    maker = LogMaker(banks, format, [Logged(4, IPL, b"")] * (reader.EVENTS_LIMIT - whole))
    assert len(maker.read().events) == reader.EVENTS_LIMIT
    maker.records.append(Logged(4, IPL, b""))
    assert reason_of(maker.write()) == "too_many_events"


def test_two_logs_in_one_are_refused() -> None:
    raw = secure_boot_log().write()
    assert reason_of(raw + raw) == "digests_missing"
    assert reason_of(LogMaker(("sha1",), "sha1").add(4, IPL, b"x").write() + raw) in (
        "truncated",
        "bad_register",
    )


@pytest.mark.parametrize("name", ["eventlogs/tools-sdboot-fedora37", "eventlogs/tpm12-bios-15", "vm/*"])
def test_a_log_cut_off_anywhere_is_refused_or_ends_between_two_events(name: str) -> None:
    (vector,) = vectors(name)
    raw = vector.read("eventlog.bin" if vector.has("eventlog.bin") else "log.bin")
    whole = read_log(raw)
    for size in range(len(raw)):
        try:
            part = read_log(raw[:size])
        except StructureError:
            continue
        # Bytes of a cut event that are all zero look like the end of a buffer.
        assert part.events == whole.events[: len(part.events)]
        assert part.padding < 32
