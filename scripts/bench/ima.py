"""What does replaying an IMA list cost, beside the bare hashing of its entries?

The floor is what no verifier in Python can leave out: each entry's template digest in the register's bank,
its SHA-1 against the list, and the extend. A re-attestation with 100 new entries is measured after lists of
two lengths: its cost must not depend on what was proven before.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import islice

from scripts.bench.measure import Row, Work, pair
from tpm.ima.ascii import write_ascii
from tpm.ima.binary import write_binary
from tpm.ima.entry import Record
from tpm.ima.replay import Mark, replay, start_of
from tpm.ima.template import TEMPLATES
from tpm.ima.verify import verify_measurements
from tpm.structures.algorithms import SHA256
from tpm.verify.pcrs import VerifiedPcrs

_ENTRIES = 100_000
_NEW = 100
_BOUND = 3.0


def rows() -> Iterator[Row]:
    """Whole lists in both forms, and increments."""
    records = _list(_ENTRIES + _NEW)
    whole = records[:_ENTRIES]
    floor = _floor(whole)
    # Devices send the binary form; the printed one is for files that people verify by hand.
    for form, write, bound in (("binary", write_binary, _BOUND), ("ascii", write_ascii, None)):
        raw, quoted = b"".join(map(write, whole)), _quoted(whole)
        title = f"IMA list of {_ENTRIES:,} entries, {form}"
        yield pair(title, _verification(raw, quoted, None), floor, bound=bound, pairs=7)
    for before in (1_000, _ENTRIES):
        part = records[before : before + _NEW]
        known = Mark(before, _value(records[:before]), padded=False)
        ours = _verification(b"".join(map(write_binary, part)), _quoted(records[: before + _NEW]), known)
        yield pair(f"IMA, {_NEW} new entries after {before:,}", ours, _floor(part), bound=_BOUND)


def _list(count: int) -> list[Record]:
    """Entries as of a machine with ima-ng: paths of libraries, different digests."""
    template, source = TEMPLATES["ima-ng"], random.Random(10)
    records = []
    for index in range(count):
        path = b"boot_aggregate" if index == 0 else b"/usr/lib/x86_64-linux-gnu/lib%d/some-name.so" % index
        data = template.join((b"sha256:\0" + source.randbytes(32), path + b"\0"))
        records.append(Record(10, template, hashlib.sha1(data).digest(), data, True))
    return records


def _value(records: list[Record]) -> bytes:
    *_, (_, value) = islice(replay(records, bank=SHA256, start=start_of(SHA256)), len(records))
    return value


def _quoted(records: list[Record]) -> VerifiedPcrs:
    return VerifiedPcrs("sha256", {10: _value(records)})


def _verification(raw: bytes, quoted: VerifiedPcrs, known: Mark | None) -> Work:
    first = known.count if known else 0
    return lambda: verify_measurements(raw, quoted, first=first, known=known)


def _floor(records: list[Record]) -> Work:
    stated = [(record.logged, record.data) for record in records]

    def work() -> bytes:
        sha1, sha256, value = hashlib.sha1, hashlib.sha256, bytes(32)
        for logged, data in stated:
            if sha1(data).digest() != logged:
                raise ValueError("the list is not intact")
            value = sha256(value + sha256(data).digest()).digest()
        return value

    return work
