"""What must hold of any bytes that are given as an IMA list?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from scripts.fuzz.harness import Target
from tpm.errors import EvidenceError, StructureError
from tpm.ima.ascii import write_ascii
from tpm.ima.binary import write_binary
from tpm.ima.entry import Entry, Record
from tpm.ima.measurements import is_binary, read_records
from tpm.ima.summary import summarise
from tpm.ima.template import template_of
from tpm.ima.verify import verify_measurements
from tpm.structures.algorithms import SHA1, SHA256, Hash
from tpm.verify.pcrs import VerifiedPcrs


def targets() -> Iterator[Target]:
    """Printed and binary lists."""
    yield Target("ima_ascii", check_list, _seeds(write_ascii))
    yield Target("ima_binary", check_list, _seeds(write_binary))


def check_list(raw: bytes) -> None:
    """Readable or refused; what was read is written as it was, and verifying ends in an answer or an error of
    ours.
    """
    records: list[Record] = []
    whole = True
    try:
        for record in read_records(raw):
            records.append(record)
    except StructureError:
        whole = False
    for position, record in enumerate(records):
        entry = Entry.of(position, record)
        assert entry.file_digest is None or str(entry.file_digest)
    if whole:
        _written_alike(raw, records)
    summarise(raw, {"sha256": {10: bytes(32)}})
    try:
        verify_measurements(raw, VerifiedPcrs("sha256", {10: hashlib.sha256(raw).digest()}))
    except (StructureError, EvidenceError):
        return
    raise AssertionError("a list replays to a register that it was not made for")


def _written_alike(raw: bytes, records: list[Record]) -> None:
    if not raw:
        return
    if is_binary(raw):
        assert b"".join(map(write_binary, records)) == raw
        return
    # Blanks at the ends of lines may have been removed by a tool, and the last line break with them.
    written = b"".join(map(write_ascii, records))
    assert _without_blanks(written) == _without_blanks(raw)


def _without_blanks(raw: bytes) -> list[bytes]:
    lines = [line.rstrip(b" ") for line in raw.split(b"\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def _seed_records(logged: Hash) -> list[Record]:
    """An entry of each kind."""
    digest, name = b"sha256:\0" + bytes(range(32)), b"/usr/bin/demo\0"
    each = (
        ("ima", bytes(20), name),
        ("ima-ng", digest, b"boot_aggregate\0"),
        ("ima-ng", b"sha1:\0" + bytes(20), b"/tmp/a\nb c\0"),
        ("ima-sig", digest, name, b"\x03\x02\x04" + bytes(range(12))),
        ("ima-sig", digest, name, b""),
        ("ima-buf", digest, b".ima\0", b"certificate"),
        ("ima-modsig", digest, name, b"", digest, b"pkcs7"),
        ("ima-sigv2", b"verity:" + digest, name, b"\x06\x03"),
        ("evm-sig", digest, name, b"\5", b"security.ima\0", bytes(4), bytes(4), bytes(4), bytes(4), bytes(2)),
        ("d-ng|n-ng|imode", digest, name, bytes(2)),
    )
    records = []
    for name_of, *values in each:
        template = template_of(name_of.encode())
        data = template.join(values)
        records.append(Record(10, template, logged.digest(template.hashed(data)), data, True))
    return [*records, records[1]._replace(logged=bytes(logged.size))]


def _seeds(write: Callable[[Record], bytes]) -> tuple[bytes, ...]:
    lists = [_seed_records(logged) for logged in (SHA1, SHA256)]
    singles = [write(record) for record in lists[0]]
    return (*singles, *(b"".join(map(write, records)) for records in lists))
