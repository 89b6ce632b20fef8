"""Which entries are in this binary list?

The kernel's `binary_runtime_measurements`: per entry the register, the template digest, the template's name
with its length, the length of the data and the data; "ima" has no length of data. Numbers are little-endian,
as on every machine that is served here and with `ima_canonical_fmt` elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tpm.errors import StructureError
from tpm.ima.entry import NO_DIGEST, Record, constructor
from tpm.ima.template import LEGACY_DIGEST, LEGACY_NAME, MAX_DATA, MAX_NAME, Template, template_of
from tpm.structures.algorithms import HASHES, Hash

REGISTERS = 24

_U32 = struct.Struct("<I")
_unpack = _U32.unpack_from


def read_binary(raw: bytes, logged: Hash) -> Iterator[Record]:
    """The entries, whose template digests are of the hash `logged`, one at a time.

    StructureError "truncated", "bad_register", "unknown_template", "oversized" and those of the template;
    what came before was yielded.
    """
    head = struct.Struct(f"<I{logged.size}sI")
    unpack, head_size, new = head.unpack_from, head.size, constructor(logged)
    known: dict[bytes, Template] = {}
    make = tuple.__new__  # as Record(…) does, in half its time
    offset, end = 0, len(raw)
    while offset < end:
        if offset + head_size > end:
            raise _truncated("head", offset)
        pcr, stated, size = unpack(raw, offset)
        if pcr >= REGISTERS:
            raise StructureError("bad_register", f"The entry at byte {offset} names register {pcr}.")
        offset += head_size
        name = raw[offset : offset + size] if size <= MAX_NAME else b""
        template = known.get(name)
        if template is None:
            template = known[name] = _template_at(raw, offset, size)
        offset += size
        if template.legacy:
            data, offset = _legacy_at(raw, offset)
        else:
            start = offset + 4
            offset = start + _data_size(raw, offset, end)
            data = raw[start:offset]
        template.check(data)
        intact = new(template.hashed(data)).digest() == stated or stated in NO_DIGEST
        yield make(Record, (pcr, template, stated, data, intact))


def write_binary(record: Record) -> bytes:
    """The entry as the kernel writes it."""
    name = record.template.name.encode()
    head = _U32.pack(record.pcr) + record.logged + _U32.pack(len(name)) + name
    if not record.template.legacy:
        return head + _U32.pack(len(record.data)) + record.data
    path = record.data[LEGACY_DIGEST:]
    return head + record.data[:LEGACY_DIGEST] + _U32.pack(len(path)) + path


def logged_hash(raw: bytes) -> Hash:
    """The hash of the template digests: SHA-1, or that of the file variant, told by where the first
    template's name can be read. StructureError "not_a_list" where it is nowhere.
    """
    for known in HASHES.values():
        at = 4 + known.size
        if at + 4 > len(raw):
            break
        size = _unpack(raw, at)[0]
        if not 0 < size <= MAX_NAME or at + 4 + size > len(raw):
            continue
        try:
            template_of(raw[at + 4 : at + 4 + size])
        except StructureError:
            continue
        return known
    raise StructureError(
        "not_a_list", "These bytes are no list of IMA: the first entry names no template of its."
    )


def _template_at(raw: bytes, offset: int, size: int) -> Template:
    if size > MAX_NAME:
        raise StructureError(
            "unknown_template", f"The entry before byte {offset} has a name of {size} bytes."
        )
    if offset + size > len(raw):
        raise _truncated("template's name", offset)
    return template_of(raw[offset : offset + size])


def _data_size(raw: bytes, offset: int, end: int) -> int:
    """The length that stands here, of data that the list has."""
    if offset + 4 > end:
        raise _truncated("length of data", offset)
    size: int = _unpack(raw, offset)[0]
    if size > MAX_DATA:
        raise StructureError(
            "oversized", f"The entry before byte {offset} has {size} bytes of data; at most {MAX_DATA}."
        )
    if offset + 4 + size > end:
        raise _truncated("data", offset)
    return size


def _legacy_at(raw: bytes, offset: int) -> tuple[bytes, int]:
    """A digest and a name with its length, without that length; and where they end."""
    start = offset + LEGACY_DIGEST
    if start + 4 > len(raw):
        raise _truncated("digest", offset)
    size: int = _unpack(raw, start)[0]
    if size > LEGACY_NAME:
        raise StructureError(
            "oversized", f"The entry before byte {offset} has a name of {size} bytes, not 255."
        )
    if start + 4 + size > len(raw):
        raise _truncated("name", start)
    return raw[offset:start] + raw[start + 4 : start + 4 + size], start + 4 + size


def _truncated(what: str, offset: int) -> StructureError:
    return StructureError("truncated", f"The list ends within the {what} of the entry at byte {offset}.")
