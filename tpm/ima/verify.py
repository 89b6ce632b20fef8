"""How much of this list does the quoted register 10 prove?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

from tpm.errors import EvidenceError
from tpm.ima.aggregate import is_boot_aggregate, verify_boot_aggregate, wrong_aggregate
from tpm.ima.entry import BOOT_AGGREGATE, Entry, Record
from tpm.ima.measurements import MAX_ENTRIES, read_entries, read_records
from tpm.ima.replay import REGISTER, Mark, replay, start_of
from tpm.structures.algorithms import SHA1, Hash, hash_by_name
from tpm.verify.pcrs import VerifiedPcrs

# How the data of a boot_aggregate, which nobody signs, ends in the usual templates: to search each entry for
# it would cost as much as to hash it.
_ENDINGS = (BOOT_AGGREGATE + b"\0", BOOT_AGGREGATE + b"\0" + bytes(4))

Boot = Literal["proven", "unquoted", "before"]
"""Is the boot aggregate that of the quoted registers? "unquoted": they are not all quoted; "before": it came
with an earlier part of the list.
"""


@dataclass(frozen=True, slots=True)
class VerifiedMeasurements:
    """The entries that a quoted register 10 covers. Comes from `verify_measurements` alone.

    `raw` is the list as it was sent, whose first entry is at `first` in the boot's list and of which
    `covered` entries are proven; what follows is nobody's word. `mark` is what to remember for the next round
    of this boot.
    """

    raw: bytes
    first: int
    covered: int
    mark: Mark
    boot: Boot

    def entries(self) -> Iterator[Entry]:
        """The proven entries, read again from the list, one at a time. Violations are proven, their paths
        not.
        """
        return islice(read_entries(self.raw, first=self.first), self.covered)


def verify_measurements(
    raw: bytes,
    pcrs: VerifiedPcrs,
    *,
    first: int = 0,
    known: Mark | None = None,
    at_boot: Mapping[int, bytes] | None = None,
    limit: int = MAX_ENTRIES,
) -> VerifiedMeasurements:
    """The shortest beginning of the list after which register 10 holds the quoted value.

    `known` is the mark of the last list that was verified in this boot (None: none was), `first` the place in
    the boot's list where this one begins: 0 for a whole list, `known.count` for what came since. `at_boot`
    gives registers as the replayed firmware log leaves them, for those that userspace has extended since.

    StructureError where the list cannot be read so far. EvidenceError "ima_unquoted", "ima_gap",
    "ima_template_digest", "ima_not_covered", "ima_rollback", "boot_aggregate". Whether what was measured is
    acceptable is not judged.
    """
    # 1. Register 10 was quoted.
    quoted = pcrs.values.get(REGISTER)
    if quoted is None:
        raise EvidenceError(
            "ima_unquoted", "The quote does not cover register 10; a list proves nothing without it."
        )
    bank = hash_by_name(pcrs.bank)
    # 2. The list begins at the boot's start, or where the last one ended.
    if first and (known is None or known.count != first):
        raise EvidenceError(
            "ima_gap", f"The list begins at entry {first}; {known.count if known else 0} are known."
        )
    # 3. It replays to the quoted value; nothing that was known before is missing or altered.
    reached = _shortest(partial(read_records, raw, limit=limit), quoted, bank, first=first, known=known)
    # 4. It belongs to the boot of the quoted registers.
    values = {**pcrs.values, **(at_boot or {})}
    boot = _judge_boot(reached, bank=bank, values=values, whole=not first)
    return VerifiedMeasurements(raw, first, reached.mark.count - first, reached.mark, boot)


Read = Callable[[], Iterator[Record]]
"""The list's entries, read anew at each call."""


@dataclass(frozen=True, slots=True)
class _Reached:
    """The mark at which the register first holds the quoted value, the part's first entry up to there, and
    whether a boot aggregate stands anywhere but at the list's beginning.
    """

    mark: Mark
    head: Record | None
    again: bool


def _judge_boot(reached: _Reached, *, bank: Hash, values: Mapping[int, bytes], whole: bool) -> Boot:
    if reached.again:
        raise wrong_aggregate(
            "The list has a second boot_aggregate, as after kexec; only the first boot counts."
        )
    if not whole:
        return "before"
    return "proven" if verify_boot_aggregate(reached.head, bank=bank, values=values) else "unquoted"


def _shortest(read: Read, quoted: bytes, bank: Hash, *, first: int, known: Mark | None) -> _Reached:
    """The shortest beginning that replays to the quoted value, as newer or as older kernels extend."""
    ways = (known.padded,) if known is not None else (False,) if bank is SHA1 else (False, True)
    for padded in ways:
        start = known if first and known is not None else start_of(bank, padded=padded)
        reached = _reach(read, quoted, bank, start=start, known=known)
        if reached is not None:
            return reached
    raise EvidenceError(
        "ima_not_covered",
        "No beginning of the list replays to the quoted register 10; send the whole list anew.",
    )


def _reach(read: Read, quoted: bytes, bank: Hash, *, start: Mark, known: Mark | None) -> _Reached | None:
    """None where the register never holds the quoted value."""
    floor = known.count if known is not None else 0
    if start.value == quoted and start.count == floor:
        return _Reached(start, None, again=False)
    head, again = None, False
    count = start.count
    for record, value in replay(read(), bank=bank, start=start):
        count += 1
        if count <= 1:
            head = record
        elif record.data.endswith(_ENDINGS) if record.template.usual else BOOT_AGGREGATE in record.data:
            again = again or is_boot_aggregate(record)
        if count == floor and known is not None and value != known.value:
            raise EvidenceError(
                "ima_rollback", f"The first {floor} entries are not those proven before in this boot."
            )
        if value == quoted:
            if count < floor:
                raise EvidenceError(
                    "ima_rollback", f"{count} entries are covered; {floor} were proven before."
                )
            return _Reached(Mark(count, value, start.padded), head, again)
    if count < floor:
        raise EvidenceError(
            "ima_rollback", f"The list has {count} entries; {floor} were proven before in this boot."
        )
    return None
