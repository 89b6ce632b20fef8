"""Are Secure Boot's facts taken only from what the firmware measured, where and when it does?"""

import hashlib
import struct
import time

import pytest

from tests.tpm.eventlog.logs import (
    AUTHORITY,
    CONFIG,
    DATABASE,
    GLOBAL,
    NO_ACTION,
    SEPARATOR,
    SHIM,
    X509_LIST,
    Logged,
    LogMaker,
    efivar,
    secure_boot_log,
    signature_list,
)
from tpm.errors import StructureError
from tpm.eventlog.efi.signature_list import parse_signature_lists
from tpm.eventlog.efi.variable import parse_variable
from tpm.eventlog.events import EventType
from tpm.eventlog.facts.boot import BootFacts, read_facts

CERTIFICATE = b"\x30\x82\x00\x10" + bytes(16)


def facts_of(maker: LogMaker, bank: str = "sha256") -> BootFacts:
    return read_facts(maker.read(), bank=bank, registers=None)


def replaced(index: int, record: Logged, **options: bytes) -> LogMaker:
    maker = secure_boot_log(**options)  # type: ignore[arg-type]
    maker.records[index] = record
    return maker


def before(maker: LogMaker, record: Logged) -> LogMaker:
    """The record right before PCR 7's separator."""
    maker.records.insert(6, record)
    return maker


def codes(facts: BootFacts) -> set[str]:
    return {one.code for one in facts.findings}


@pytest.mark.parametrize(
    ("content", "enabled"), [(b"\x01", True), (b"\0", False), (b"", False), (b"\x02", None)]
)
def test_secure_boot_is_what_its_variable_holds(content: bytes, enabled: bool | None) -> None:
    facts = facts_of(secure_boot_log(enabled=content))
    assert facts.secure_boot.enabled is enabled
    assert facts.secure_boot.events == (2,)


def test_all_of_secure_boot_is_read_and_carries_its_events() -> None:
    boot = facts_of(secure_boot_log()).secure_boot
    assert {name: (one.entries, one.event) for name, one in boot.databases.items()} == {
        "PK": (1, 3),
        "KEK": (1, 4),
        "db": (1, 5),
        "dbx": (2, 6),
    }
    assert boot.databases["dbx"].hashes == {b"\x04" * 32, b"\x05" * 32}
    assert [(one.source, one.hash, one.event) for one in boot.authorities] == [("db", b"\x03" * 32, 16)]
    assert boot.separator == 7
    assert boot.unexplained == ()


def test_the_edition_of_dbx_and_its_revision_are_told() -> None:
    owner = bytes.fromhex("6c2b139dd5598843ab1c185cfcb2eb92")
    application = bytes.fromhex("612b139dd5598843ab1c185cfcb2eb92")
    entries = [
        owner + b"\x01" + application + struct.pack("<HH", 0, version) + bytes(11) for version in (2, 7, 3)
    ]
    listed = signature_list([b"\x05" * 32])
    versions = listed[:16] + struct.pack("<III", 28 + 3 * 48, 0, 48) + b"".join(entries)
    maker = replaced(5, Logged(7, CONFIG, efivar("dbx", listed + versions, DATABASE)))
    database = facts_of(maker).secure_boot.databases["dbx"]
    assert database.revision == "7.0"
    assert database.sha256 == hashlib.sha256(listed + versions).hexdigest()
    assert facts_of(secure_boot_log()).secure_boot.databases["dbx"].revision is None


NAMES: dict[str, bytes] = {
    "foreign GUID": efivar("SecureBoot", b"\x01", SHIM),
    "database's GUID": efivar("SecureBoot", b"\x01", DATABASE),
    "trailing NUL": efivar("SecureBoot\0", b"\x01"),
    "leading NUL": efivar("\0SecureBoot", b"\x01"),
    "other case": efivar("secureboot", b"\x01"),
    "half a character": efivar("SecureBoot\ud800", b"\x01"),
    "name length short": GLOBAL + struct.pack("<QQ", 9, 1) + "SecureBoot".encode("utf-16-le") + b"\x01",
    "name length huge": GLOBAL + struct.pack("<QQ", 1 << 63, 1) + "SecureBoot".encode("utf-16-le") + b"\x01",
    "data length huge": GLOBAL + struct.pack("<QQ", 10, 1 << 63) + "SecureBoot".encode("utf-16-le") + b"\x01",
    "lengths that wrap": GLOBAL
    + struct.pack("<QQ", (1 << 64) - 1, 2)
    + "SecureBoot".encode("utf-16-le")
    + b"\x01",
    "trailing byte": efivar("SecureBoot", b"\x01") + b"\0",
    "no name": efivar("", b"\x01"),
}


@pytest.mark.parametrize("name", NAMES)
def test_el_10_a_variable_under_a_false_name_is_no_fact(name: str) -> None:
    facts = facts_of(replaced(1, Logged(7, CONFIG, NAMES[name])))
    assert facts.secure_boot.enabled is None
    assert facts.secure_boot.events == ()


def test_el_10_twin_the_right_name_is_one() -> None:
    facts = facts_of(replaced(1, Logged(7, CONFIG, efivar("SecureBoot", b"\x01", GLOBAL))))
    assert facts.secure_boot.enabled is True


SMUGGLED: dict[str, tuple[LogMaker, str | None]] = {
    "data swapped, digest kept": (
        replaced(1, Logged(7, CONFIG, efivar("SecureBoot", b"\x01"), measured=efivar("SecureBoot", b"\0"))),
        "data_mismatch",
    ),
    "content measured without its name": (
        replaced(1, Logged(7, CONFIG, efivar("SecureBoot", b"\x01"), measured=b"\x01")),
        "data_mismatch",
    ),
    "in another register": (replaced(1, Logged(4, CONFIG, efivar("SecureBoot", b"\x01"))), None),
    "as a note": (replaced(1, Logged(7, NO_ACTION, efivar("SecureBoot", b"\x01"))), None),
    "as an authority": (replaced(1, Logged(7, AUTHORITY, efivar("SecureBoot", b"\x01"))), None),
    "as an action": (replaced(1, Logged(7, EventType.EV_EFI_ACTION, efivar("SecureBoot", b"\x01"))), None),
    "as a separator": (replaced(1, Logged(7, EventType.EV_SEPARATOR, efivar("SecureBoot", b"\x01"))), None),
    "after the separator": (
        LogMaker(records=[*secure_boot_log().records[:1], *secure_boot_log().records[2:]]).add(
            7, CONFIG, efivar("SecureBoot", b"\x01")
        ),
        "variable_after_separator",
    ),
    "with two values": (
        before(secure_boot_log(), Logged(7, CONFIG, efivar("SecureBoot", b"\0"))),
        "variable_repeated",
    ),
    "in a bank that is not judged": (
        replaced(1, Logged(7, CONFIG, efivar("SecureBoot", b"\x01"), banks=("sha1",))),
        None,
    ),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_secure_boot_cannot_be_smuggled_in(name: str) -> None:
    maker, code = SMUGGLED[name]
    facts = facts_of(maker)
    assert facts.secure_boot.enabled is None
    assert code is None or code in codes(facts)


def test_secure_boot_measured_twice_alike_is_a_fact() -> None:
    facts = facts_of(before(secure_boot_log(), Logged(7, CONFIG, efivar("SecureBoot", b"\x01"))))
    assert facts.secure_boot.enabled is True
    assert facts.secure_boot.events == (2, 7)


def test_a_separator_is_known_by_its_digest_whatever_it_is_called() -> None:
    """Secure Boot was off; a loader extended "on" later and calls the separator something else."""
    maker = secure_boot_log(enabled=b"\0")
    maker.records[1] = Logged(7, EventType.EV_POST_CODE, b"nothing", measured=maker.records[1].data)
    maker.records[6] = Logged(7, EventType.EV_COMPACT_HASH, b"nothing", measured=SEPARATOR)
    facts = facts_of(maker.add(7, CONFIG, efivar("SecureBoot", b"\x01")))
    assert facts.secure_boot.enabled is None
    assert facts.secure_boot.separator == 7
    assert 2 in facts.unexplained[7]


RETYPES = [
    Logged(7, EventType.EV_EFI_ACTION, efivar("db", CERTIFICATE, DATABASE)),
    Logged(7, EventType.EV_SEPARATOR, SEPARATOR, measured=efivar("db", CERTIFICATE, DATABASE)),
    Logged(7, EventType.EV_SEPARATOR, efivar("db", CERTIFICATE, DATABASE)),
    Logged(7, CONFIG, efivar("Shim", CERTIFICATE, SHIM)),
    Logged(7, CONFIG, efivar("db", CERTIFICATE, DATABASE)),
    Logged(7, AUTHORITY, b"nothing", measured=efivar("db", CERTIFICATE, DATABASE)),
    Logged(7, 0x80000666, efivar("db", CERTIFICATE, DATABASE)),
    Logged(7, EventType.EV_IPL, b"nothing", measured=efivar("db", CERTIFICATE, DATABASE)),
]


@pytest.mark.parametrize("record", RETYPES, ids=lambda one: f"{one.kind:x}")
def test_an_authority_cannot_be_hidden(record: Logged) -> None:
    maker = secure_boot_log()
    maker.records.append(record)
    facts = facts_of(maker)
    assert [one.source for one in facts.secure_boot.authorities] == ["db"]
    assert facts.unexplained[7] == (len(maker.records),)


def test_an_authority_in_the_open_is_one() -> None:
    maker = secure_boot_log().add(7, AUTHORITY, efivar("Shim", CERTIFICATE, SHIM))
    maker.add(7, AUTHORITY, efivar("SbatLevel", b"sbat,1,2023012900\n", SHIM))
    facts = facts_of(maker)
    assert [(one.source, one.by_shim) for one in facts.secure_boot.authorities] == [
        ("db", False),
        ("Shim", True),
    ]
    assert [(one.name, one.text) for one in facts.secure_boot.shim_state] == [
        ("SbatLevel", "sbat,1,2023012900")
    ]
    assert facts.unexplained[7] == ()


@pytest.mark.parametrize("over", [0, 1, 6])
def test_the_byte_that_older_shims_count_too_many_is_not_part_of_a_fact(over: int) -> None:
    data = efivar("Shim", CERTIFICATE, SHIM) + bytes(over)
    maker = secure_boot_log().add(7, AUTHORITY, data + b"\xaf", measured=data)
    found = [one.certificate for one in facts_of(maker).secure_boot.authorities if one.by_shim]
    assert found == [CERTIFICATE]
    cut = efivar("Shim", CERTIFICATE, SHIM)
    maker = secure_boot_log().add(7, AUTHORITY, cut, measured=cut[:-1])
    assert [one for one in facts_of(maker).secure_boot.authorities if one.by_shim] == []


@pytest.mark.parametrize("over", [b"", b"\xaf", bytes(6) + b"\xaf"])
def test_an_authority_that_was_not_measured_is_none(over: bytes) -> None:
    data = efivar("Shim", CERTIFICATE, SHIM) + over
    facts = facts_of(secure_boot_log().add(7, AUTHORITY, data, measured=b"another certificate"))
    assert [one for one in facts.secure_boot.authorities if one.by_shim] == []
    assert "data_mismatch" in codes(facts)
    assert facts.unexplained[7] != ()


def test_unquoted_registers_give_no_facts() -> None:
    log = secure_boot_log().read()
    without = read_facts(log, bank="sha256", registers=frozenset({0, 4}))
    assert without.secure_boot.enabled is None
    assert without.firmware != ()
    assert read_facts(log, bank="sha256", registers=frozenset({7})).secure_boot.enabled is True


def test_a_second_separator_and_an_error_are_told() -> None:
    assert codes(facts_of(secure_boot_log())) == set()
    assert codes(facts_of(secure_boot_log().add(7, EventType.EV_SEPARATOR, SEPARATOR))) == {
        "separator_repeated"
    }
    error = Logged(3, EventType.EV_SEPARATOR, b"\x01\0\0\0")
    assert codes(facts_of(replaced(11, error))) == {"separator_error"}
    assert "separator_missing" in codes(facts_of(LogMaker().add(7, CONFIG, efivar("SecureBoot", b"\x01"))))


def test_unknown_events_are_findings_and_no_failures() -> None:
    facts = facts_of(secure_boot_log().add(6, 0x80001234, b"anything"))
    assert codes(facts) == {"event_unknown"}
    assert facts.secure_boot.enabled is True


HASH = b"\x04" * 32
LISTS: dict[str, bytes] = {
    "hashes in a header": signature_list([HASH], header=bytes(16) + HASH),
    "header size alone": X509_LIST + struct.pack("<III", 28 + 48, 48, 48) + bytes(48),
    "list size 0": X509_LIST + struct.pack("<III", 0, 0, 48) + bytes(48),
    "list size 27": X509_LIST + struct.pack("<III", 27, 0, 48) + bytes(48),
    "list size huge": X509_LIST + struct.pack("<III", 0xFFFFFFFF, 0, 48) + bytes(48),
    "list size above what remains": X509_LIST + struct.pack("<III", 28 + 49, 0, 48) + bytes(48),
    "signature size 0": X509_LIST + struct.pack("<III", 28 + 48, 0, 0) + bytes(48),
    "signature size 15": X509_LIST + struct.pack("<III", 28 + 45, 0, 15) + bytes(45),
    "signature size above what remains": X509_LIST + struct.pack("<III", 28 + 48, 0, 49) + bytes(48),
    "hash of the wrong size": signature_list([HASH[:-1]]),
    "cut off in a header": signature_list([HASH]) + bytes(27),
    "loop of empty lists": (X509_LIST + struct.pack("<III", 28, 0, 48)) * 5000,
}


@pytest.mark.parametrize("name", LISTS)
def test_el_6_a_signature_list_that_lies_is_not_trusted(name: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(StructureError) as caught:
        parse_signature_lists(LISTS[name])
    assert time.perf_counter() - begin < 0.05
    assert caught.value.reason == "signature_list"
    maker = replaced(5, Logged(7, CONFIG, efivar("dbx", LISTS[name], DATABASE)))
    facts = facts_of(maker)
    assert "dbx" not in facts.secure_boot.databases
    assert "signature_list" in codes(facts)
    assert 6 in facts.unexplained[7]


def test_el_6_twin_sound_lists_are() -> None:
    lists = parse_signature_lists(
        signature_list([HASH, HASH]) + signature_list([CERTIFICATE], kind=X509_LIST)
    )
    assert [(one.kind, one.length) for one in lists] == [("sha256", 2), ("x509", 1)]
    assert [one.data for part in lists for one in part.entries()] == [HASH, HASH, CERTIFICATE]
    assert parse_signature_lists(b"") == ()


def test_a_variable_is_read_whole() -> None:
    found = parse_variable(efivar("db", b"content", DATABASE))
    assert (found.namespace, found.name, found.data) == (DATABASE, "db", b"content")
    raw = efivar("db", b"content", DATABASE)
    for size in range(len(raw)):
        with pytest.raises(StructureError):
            parse_variable(raw[:size])


@pytest.mark.parametrize("name", ["db\0", "\0db", "d\0b"])
def test_a_name_with_a_nul_is_no_name(name: str) -> None:
    with pytest.raises(StructureError):
        parse_variable(efivar(name, b"content", DATABASE))
    assert parse_variable(efivar("db", b"content", DATABASE)).name == "db"
