"""Which logs do the tests make themselves?"""

import hashlib
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from tpm.eventlog.events import EventLog, EventType
from tpm.eventlog.reader import read_log
from tpm.structures.algorithms import hash_by_name

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le
DATABASE = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f").bytes_le
SHIM = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23").bytes_le
SHA256_LIST = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
X509_LIST = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
SEPARATOR = bytes(4)

CONFIG = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
AUTHORITY = EventType.EV_EFI_VARIABLE_AUTHORITY
IPL = EventType.EV_IPL
NO_ACTION = EventType.EV_NO_ACTION


@dataclass
class Logged:
    """One record before it is written. Without `measured`, the data is what was measured."""

    register: int
    kind: int
    data: bytes
    measured: bytes | None = None
    banks: tuple[str, ...] | None = None


@dataclass
class LogMaker:
    """A log that can be changed record by record and written in each format."""

    banks: tuple[str, ...] = ("sha1", "sha256")
    format: str = "crypto-agile"
    records: list[Logged] = field(default_factory=list)

    def add(
        self,
        register: int,
        kind: int,
        data: bytes,
        *,
        measured: bytes | None = None,
        banks: tuple[str, ...] | None = None,
    ) -> "LogMaker":
        self.records.append(Logged(register, kind, data, measured, banks))
        return self

    def write(self) -> bytes:
        if self.format == "sha1":
            return b"".join(legacy(one) for one in self.records)
        header = Logged(1 if self.format == "ccel" else 0, NO_ACTION, spec_id(self.banks))
        return legacy(header) + b"".join(agile(one, self.banks) for one in self.records)

    def read(self) -> EventLog:
        return read_log(self.write())


def spec_id(banks: Iterable[str], *, version: tuple[int, int] = (0, 2), vendor: bytes = b"") -> bytes:
    hashes = [hash_by_name(bank) for bank in banks]
    announced = b"".join(struct.pack("<HH", one.id, one.size) for one in hashes)
    head = struct.pack("<16sIBBBBI", b"Spec ID Event03\0", 0, *version, 0, 2, len(hashes))
    return head + announced + bytes((len(vendor),)) + vendor


def legacy(record: Logged) -> bytes:
    digest = bytes(20) if record.kind == NO_ACTION else digest_of(record, "sha1")
    return struct.pack("<II20sI", record.register, record.kind, digest, len(record.data)) + record.data


def agile(record: Logged, banks: tuple[str, ...]) -> bytes:
    names = banks if record.banks is None else record.banks
    raw = struct.pack("<III", record.register, record.kind, len(names))
    for name in names:
        raw += struct.pack("<H", hash_by_name(name).id) + digest_of(record, name)
    return raw + struct.pack("<I", len(record.data)) + record.data


def digest_of(record: Logged, bank: str) -> bytes:
    if record.kind == NO_ACTION:
        return bytes(hash_by_name(bank).size)
    measured = record.data if record.measured is None else record.measured
    return hashlib.new(bank, measured).digest()


def efivar(name: str, data: bytes, namespace: bytes = GLOBAL) -> bytes:
    wide = name.encode("utf-16-le", "surrogatepass")
    return namespace + struct.pack("<QQ", len(wide) // 2, len(data)) + wide + data


def signature_list(entries: Iterable[bytes], *, kind: bytes = SHA256_LIST, header: bytes = b"") -> bytes:
    listed = [bytes(16) + entry for entry in entries]
    size = len(listed[0]) if listed else 48
    total = 28 + len(header) + size * len(listed)
    return kind + struct.pack("<III", total, len(header), size) + header + b"".join(listed)


def image_load(path: bytes = b"") -> bytes:
    return struct.pack("<QQQQ", 0x1000, 4096, 0, len(path)) + path


def file_path(name: str) -> bytes:
    data = (name + "\0").encode("utf-16-le")
    return struct.pack("<BBH", 4, 4, 4 + len(data)) + data + b"\x7f\xff\x04\0"


def secure_boot_log(*, enabled: bytes = b"\x01", banks: tuple[str, ...] = ("sha1", "sha256")) -> LogMaker:
    """A small boot: version, Secure Boot's variables, separators, one image with its authority, hand-over."""
    log = LogMaker(banks)
    log.add(0, EventType.EV_S_CRTM_VERSION, "Test 1.0\0".encode("utf-16-le"))
    log.add(7, CONFIG, efivar("SecureBoot", enabled))
    log.add(7, CONFIG, efivar("PK", signature_list([b"\x01" * 32])))
    log.add(7, CONFIG, efivar("KEK", signature_list([b"\x02" * 32])))
    log.add(7, CONFIG, efivar("db", signature_list([b"\x03" * 32]), DATABASE))
    log.add(7, CONFIG, efivar("dbx", signature_list([b"\x04" * 32, b"\x05" * 32]), DATABASE))
    log.add(7, EventType.EV_SEPARATOR, SEPARATOR)
    log.add(4, EventType.EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
    for register in range(7):
        log.add(register, EventType.EV_SEPARATOR, SEPARATOR)
    log.add(7, AUTHORITY, efivar("db", bytes(16) + b"\x03" * 32, DATABASE))
    application = EventType.EV_EFI_BOOT_SERVICES_APPLICATION
    log.add(4, application, image_load(file_path("\\EFI\\BOOT\\BOOTX64.EFI")), measured=b"the loader")
    log.add(5, EventType.EV_EFI_ACTION, b"Exit Boot Services Invocation")
    log.add(5, EventType.EV_EFI_ACTION, b"Exit Boot Services Returned with Success")
    return log
