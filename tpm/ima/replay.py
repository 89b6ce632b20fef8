"""What does register 10 hold after each entry of this list?

The kernel extends each bank of the TPM with a digest of the entry's data in that bank's hash (since 5.8), or,
before, with the SHA-1 filled up with zeros: `padded`. A violation extends with 0xFF. Entries that the
kernel's policy sends to another register (`pcr=`) leave this one as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tpm.errors import EvidenceError
from tpm.ima.entry import NO_DIGEST, Record, constructor, is_violation
from tpm.structures.algorithms import SHA1, Hash

REGISTER = 10
"""The register of IMA, unless the kernel was built for another (CONFIG_IMA_MEASURE_PCR_IDX)."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a verified replay ended: how many entries of the boot's list are covered, and the register's
    value after them. What a verifier remembers between two rounds of one boot; worthless in the next boot.
    """

    count: int
    value: bytes
    padded: bool


def start_of(bank: Hash, *, padded: bool = False) -> Mark:
    """The register after a reset."""
    return Mark(0, bytes(bank.size), padded)


def replay(records: Iterable[Record], *, bank: Hash, start: Mark) -> Iterator[tuple[Record, bytes]]:
    """Each entry with what register 10 of this bank holds after it.

    EvidenceError "ima_template_digest" where an entry does not hash to its template digest.
    """
    value, padded = start.value, start.padded
    new = constructor(bank)
    for position, record in enumerate(records, start.count):
        pcr, template, logged, data, intact = record
        if not intact:
            raise _altered(position)
        if pcr == REGISTER:
            if padded or logged in NO_DIGEST:
                value = new(value + extension(record, bank, padded=padded)).digest()
            else:
                value = new(value + new(template.hashed(data) if template.legacy else data).digest()).digest()
        yield record, value


def extension(record: Record, bank: Hash, *, padded: bool) -> bytes:
    """What an entry extends a register of this bank with."""
    made_with = SHA1 if padded else bank
    if is_violation(record.logged):
        extended = b"\xff" * made_with.size
    else:
        extended = made_with.digest(record.template.hashed(record.data))
    return extended.ljust(bank.size, b"\0")


def _altered(position: int) -> EvidenceError:
    return EvidenceError(
        "ima_template_digest",
        f"Entry {position} of the list does not hash to its template digest; it was altered.",
    )
