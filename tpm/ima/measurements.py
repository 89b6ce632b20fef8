"""Which entries are in this list, printed or binary?

One strict reader for each form; both give the same entries. A list is read as it is asked for: nothing but
its bytes and one entry is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tpm.errors import StructureError
from tpm.ima.ascii import printed_hash, read_ascii
from tpm.ima.binary import logged_hash, read_binary
from tpm.ima.entry import Entry, Record
from tpm.structures.algorithms import Hash

MAX_BYTES = 256 * 1024 * 1024
MAX_ENTRIES = 1_000_000


def read_records(raw: bytes, *, limit: int = MAX_ENTRIES) -> Iterator[Record]:
    """The entries of a list in either form, at most `limit`; none of no bytes, which is an increment
    without news.

    StructureError "too_large", "too_many_entries", "not_a_list" and those of the readers.
    """
    if len(raw) > MAX_BYTES:
        raise StructureError("too_large", f"The list has {len(raw)} bytes; at most {MAX_BYTES} are read.")
    if not raw:
        return
    records = read_binary(raw, list_hash(raw)) if is_binary(raw) else read_ascii(raw, list_hash(raw))
    yield from islice(records, limit)
    if next(records, None) is not None:
        raise StructureError("too_many_entries", f"The list has more than {limit} entries.")


def read_entries(raw: bytes, *, first: int = 0) -> Iterator[Entry]:
    """The same with their fields; `first` is the position of the list's first entry in the boot's list."""
    for position, record in enumerate(read_records(raw), first):
        yield Entry.of(position, record)


def is_binary(raw: bytes) -> bool:
    """A binary list begins with a register as a 32-bit number: no line of text has a NUL there."""
    return raw[1:4] == b"\0\0\0"


def list_hash(raw: bytes) -> Hash:
    """The hash of the template digests that a list states: SHA-1 but for the kernel's newer variants."""
    return logged_hash(raw) if is_binary(raw) else printed_hash(raw)
