"""Which parsers read what a boot leaves behind?"""

import struct
from collections.abc import Iterator
from pathlib import Path

from scripts.fuzz.harness import Target
from tpm.eventlog.efi.boot_option import parse_boot_option
from tpm.eventlog.efi.image_load import parse_image_load
from tpm.eventlog.efi.signature_list import parse_signature_lists
from tpm.eventlog.efi.variable import parse_variable
from tpm.eventlog.events import Event, EventLog, EventType
from tpm.eventlog.facts.boot import read_facts
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.eventlog.story import story
from tpm.eventlog.userspace import read_userspace
from tpm.structures.algorithms import hash_by_name

_LOGS = Path(__file__).parents[2] / "tests" / "vectors" / "eventlogs"
_SMALL = ("tools-sdboot-fedora37", "tpm12-bios-15", "ibm-acs-tpm12", "tools-uefiaction", "tools-event-4banks")
_RECORD = (
    b'\x1e{"pcr":11,"digests":[{"hashAlg":"sha1","digest":"%s"},{"hashAlg":"sha256","digest":"%s"}],'
    b'"content_type":"systemd","content":{"string":"ready","bootId":"%s","timestamp":1,"eventType":"phase"}}\n'
)
_PLACES = (
    (0, EventType.EV_S_CRTM_VERSION),
    (1, EventType.EV_EFI_VARIABLE_BOOT),
    (1, EventType.EV_EFI_HANDOFF_TABLES),
    (4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION),
    (4, EventType.EV_EFI_ACTION),
    (7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG),
    (7, EventType.EV_EFI_VARIABLE_AUTHORITY),
    (7, EventType.EV_EFI_ACTION),
    (8, EventType.EV_IPL),
    (9, EventType.EV_EVENT_TAG),
    (9, EventType.EV_IPL),
    (11, EventType.EV_IPL),
    (12, EventType.EV_IPL),
    (14, EventType.EV_IPL),
)
_CONFIG = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG


def targets() -> Iterator[Target]:
    """Logs, userspace logs, and the structures inside events."""
    logs = tuple((_LOGS / name / "log.bin").read_bytes() for name in _SMALL)
    yield Target("eventlog", read_back, logs)
    data = tuple(event.data for log in logs for event in read_log(log).events if event.data)
    yield Target("event_data", read_data, data)
    record = _RECORD % (b"00" * 20, b"11" * 32, b"0" * 32)
    yield Target(
        "userspace", read_userspace, (record, record * 3, record.replace(b'"pcr":11', b'"nv_index":7'))
    )
    variables = tuple(one for one in data if len(one) > 32 and one[:1] in b"\x61\xcb")
    yield Target("efi_variable", parse_variable, variables)
    databases = tuple(parse_variable(one).data for one in variables)
    yield Target("signature_list", read_entries, (*(one for one in databases if one), _database()))
    yield Target("boot_option", read_option, tuple(one for one in databases if len(one) > 32))
    yield Target("image_load", read_image, tuple(one for one in data if one[:1] == b"\x18"))


def _database() -> bytes:
    kind = bytes.fromhex("2616c4c14c509240aca941f936934328")
    return kind + struct.pack("<III", 28 + 96, 0, 48) + bytes(96)


def read_back(raw: bytes) -> EventLog:
    """Everything that is done with a log; and what was read, written again, is what was sent."""
    log = read_log(raw)
    written = encoded(log)
    assert raw[: len(written)] == written, "it reads back differently"
    assert len(raw) - len(written) == log.padding, "bytes are not accounted for"
    assert not raw[len(written) :].strip(b"\0") or not raw[len(written) :].strip(b"\xff"), "padding is not"
    replay(log)
    known = [name for name in log.algorithms if not name.startswith("0x")]
    for bank in known[:2]:
        facts = read_facts(log, bank=bank, registers=None)
        check_secure_boot(log, bank, facts.secure_boot.events)
        for line in story(log, facts):
            assert line.text.isprintable(), "a terminal would be told what to do"
    return log


def read_data(raw: bytes) -> object:
    """The bytes as data of the events that facts are taken from, truly measured, before the separator
    and after.
    """
    digests = {"sha256": hash_by_name("sha256").digest(raw)}
    separator = Event(
        0, 7, EventType.EV_SEPARATOR, {"sha256": hash_by_name("sha256").digest(bytes(4))}, bytes(4)
    )
    events = [Event(number, *place, digests, raw) for number, place in enumerate(_PLACES)]
    log = EventLog("crypto-agile", ("sha256",), (*events, separator, *events), 0)
    facts = read_facts(log, bank="sha256", registers=None)
    for line in story(log, facts):
        assert line.text.isprintable(), "a terminal would be told what to do"
    return facts


def check_secure_boot(log: EventLog, bank: str, events: tuple[int, ...]) -> None:
    """What Secure Boot's state rests on was measured under its name."""
    for number in events:
        event = log.events[number]
        assert event.type == _CONFIG
        assert hash_by_name(bank).digest(event.data) == event.digests[bank], "a fact that was not measured"
        assert "SecureBoot".encode("utf-16-le") in event.data


def encoded(log: EventLog) -> bytes:
    """The log's records as they stood."""
    if log.format == "sha1":
        return b"".join(_legacy(event) for event in log.events)
    return _legacy(log.events[0]) + b"".join(_agile(event) for event in log.events[1:])


def _legacy(event: Event) -> bytes:
    head = struct.pack("<II20sI", event.register, event.type, event.digests["sha1"], len(event.data))
    return head + event.data


def _agile(event: Event) -> bytes:
    raw = struct.pack("<III", event.register, event.type, len(event.digests))
    for name, digest in event.digests.items():
        number = int(name, 16) if name.startswith("0x") else hash_by_name(name).id
        raw += struct.pack("<H", number) + digest
    return raw + struct.pack("<I", len(event.data)) + event.data


def read_entries(raw: bytes) -> int:
    """Every entry of every list; together with the heads they are all that there was."""
    lists = parse_signature_lists(raw)
    for part in lists:
        assert sum(16 + len(one.data) for one in part.entries()) == len(part.body), "an entry is lost"
    assert sum(28 + len(part.body) for part in lists) == len(raw), "bytes are not accounted for"
    return len(lists)


def read_option(raw: bytes) -> object:
    """A boot option and its path as text."""
    return parse_boot_option(raw).path


def read_image(raw: bytes) -> object:
    """An image's notes and its path as text."""
    load = parse_image_load(raw)
    return load.path, load.file
