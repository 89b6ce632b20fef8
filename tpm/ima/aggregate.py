"""Does this list belong to the boot that the other registers speak of?

The kernel's first entry, `boot_aggregate`, is the digest over the firmware's and boot loader's registers as
they were when IMA began: 0 to 7 of the SHA-1 bank, 0 to 9 of any other (since Linux 5.8). Registers that
userspace extends later (systemd extends 9 on some machines) must come as the replayed firmware log has them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tpm.errors import EvidenceError
from tpm.ima.entry import BOOT_AGGREGATE, Entry, FileDigest, Record
from tpm.structures.algorithms import SHA1, Hash


def aggregated(bank: Hash) -> range:
    """The registers that a boot aggregate of this bank is made of."""
    return range(8) if bank is SHA1 else range(10)


def is_boot_aggregate(record: Record) -> bool:
    return Entry.of(0, record).path == BOOT_AGGREGATE


def boot_aggregate_of(record: Record) -> FileDigest | None:
    """The digest of the entry if it is a boot aggregate and no violation."""
    entry = Entry.of(0, record)
    return None if entry.violation or entry.path != BOOT_AGGREGATE else entry.file_digest


def verify_boot_aggregate(record: Record | None, *, bank: Hash, values: Mapping[int, bytes]) -> bool:
    """The first of the covered entries is a boot aggregate of this bank, over these values. False: a register
    is not known, so that it could not be compared.

    EvidenceError "boot_aggregate" otherwise. That there is no second one is `verify_measurements`'s to see.
    """
    # 1. The first entry is one.
    found = None if record is None else boot_aggregate_of(record)
    if found is None:
        raise wrong_aggregate("The first covered entry is no boot_aggregate.")
    # 2. It is made of the quoted bank: another bank's registers were not proven.
    if found.kind != "ima" or found.algorithm != bank.name:
        raise wrong_aggregate(
            f"The boot_aggregate is of {found.algorithm}; the quote covers the {bank.name} bank."
        )
    # 3. It is the digest of the registers.
    if not all(register in values for register in aggregated(bank)):
        return False
    expected = bank.digest(b"".join(values[register] for register in aggregated(bank)))
    if found.digest != expected:
        raise wrong_aggregate(
            f"The boot_aggregate is {found.digest.hex()}; the quoted registers give {expected.hex()}."
        )
    return True


def wrong_aggregate(detail: str) -> EvidenceError:
    return EvidenceError("boot_aggregate", detail)
