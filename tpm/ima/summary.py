"""Does this list hold, and what is in it? For files, without a quote.

The registers come from a file that nobody signed: what holds here is consistent, and proven only as far as
the registers are. With a quote, `tpm.ima.verify` is the one to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tpm.errors import AttestationError, EvidenceError, StructureError
from tpm.ima.aggregate import (
    aggregated,
    boot_aggregate_of,
    is_boot_aggregate,
    verify_boot_aggregate,
    wrong_aggregate,
)
from tpm.ima.entry import Record, is_violation
from tpm.ima.measurements import read_records
from tpm.ima.replay import REGISTER, extension
from tpm.structures.algorithms import HASHES, SHA1, Hash

Registers = Mapping[str, Mapping[int, bytes]]
ALWAYS = ("sha1", "sha256")
"""The banks that are replayed whatever is quoted."""

_BANKS = {known.name: known for known in HASHES.values()}


@dataclass(frozen=True, slots=True)
class Summary:
    """`reason` and `detail` are None where the list holds. `entries` are those that could be read; None, as
    `banks`, for what is no list. `banks` has the replay of the whole list in every register that it extends;
    `covered` how many entries the given register 10 covers, 0 where none was given or none fits.
    `boot_aggregate` is "alg:hex".
    """

    valid: bool
    reason: str | None
    detail: str | None
    entries: int | None
    template: str | None
    banks: Mapping[str, Mapping[int, bytes]] | None
    violations: int | None
    covered: int | None
    boot_aggregate: str | None


def summarise(raw: bytes, registers: Registers) -> Summary:
    """The whole list, read and replayed; it holds when it is readable, intact, and when a beginning of it
    replays to register 10 of each bank that `registers` give (none: nothing is compared). Where they also
    have what a boot aggregate is made of, it must be the first entry, the only one, and theirs.
    """
    known = {name: values for name, values in registers.items() if name in _BANKS}
    banks = dict.fromkeys((*ALWAYS, *(name for name, values in known.items() if REGISTER in values)))
    seen = _Seen(tuple(_Bank(_BANKS[name], known.get(name, {}).get(REGISTER)) for name in banks))
    fault: AttestationError | None = None
    try:
        seen.read(read_records(raw))
        seen.judge(known)
    except AttestationError as error:
        fault = error
    readable = not isinstance(fault, StructureError)
    return Summary(
        valid=fault is None,
        reason=None if fault is None else fault.reason,
        detail=None if fault is None else fault.detail,
        entries=seen.entries if readable or seen.entries else None,
        template=None if not seen.templates else "mixed" if len(seen.templates) > 1 else seen.templates[0],
        banks={bank.hash.name: bank.shown() for bank in seen.banks} if readable else None,
        violations=seen.violations if readable or seen.entries else None,
        covered=seen.covered() if readable else None,
        boot_aggregate=None if seen.head is None else _shown_aggregate(seen.head),
    )


@dataclass(slots=True)
class _Bank:
    """The replay in one bank, as newer kernels extend and, if a value is sought, as older ones do."""

    hash: Hash
    sought: bytes | None
    values: dict[int, bytes] = field(default_factory=dict)
    padded: bytes = b""
    met: dict[bool, int] = field(default_factory=dict)

    def extend(self, record: Record, count: int) -> None:
        held = self.values.get(record.pcr, bytes(self.hash.size))
        self.values[record.pcr] = self.hash.digest(held + extension(record, self.hash, padded=False))
        if record.pcr != REGISTER or self.sought is None:
            return
        if self.values[REGISTER] == self.sought:
            self.met.setdefault(False, count)
        if self.hash is not SHA1 and not self.met:
            held = self.padded or bytes(self.hash.size)
            self.padded = self.hash.digest(held + extension(record, self.hash, padded=True))
            if self.padded == self.sought:
                self.met.setdefault(True, count)

    def shown(self) -> dict[int, bytes]:
        return dict(sorted(self.values.items()))

    def covered(self) -> int:
        return next(iter(self.met.values()), 0)


@dataclass(slots=True)
class _Seen:
    """What was read so far."""

    banks: tuple[_Bank, ...]
    entries: int = 0
    templates: list[str] = field(default_factory=list)
    violations: int = 0
    altered: list[int] = field(default_factory=list)
    head: Record | None = None
    again: bool = False

    def read(self, records: Iterable[Record]) -> None:
        for record in records:
            if self.head is None:
                self.head = record
            elif b"boot_aggregate" in record.data and is_boot_aggregate(record):
                self.again = True
            if record.template.name not in self.templates:
                self.templates.append(record.template.name)
            self.entries += 1
            self.violations += is_violation(record.logged)
            if not record.intact and not self.altered:
                self.altered.append(self.entries - 1)
            for bank in self.banks:
                bank.extend(record, self.entries)

    def covered(self) -> int:
        """Of several banks the least: they were not read in the same instant."""
        return min((bank.covered() for bank in self.banks if bank.sought is not None), default=0)

    def judge(self, registers: Registers) -> None:
        # 1. There is something to judge.
        if not self.entries:
            raise EvidenceError("log_empty", "The list has no entry.")
        # 2. Each entry is what the kernel hashed.
        if self.altered:
            raise EvidenceError(
                "ima_template_digest", f"Entry {self.altered[0]} does not hash to its template digest."
            )
        # 3. A beginning of the list replays to the given register 10, in each bank.
        for bank in self.banks:
            if bank.sought is not None and not bank.met:
                raise EvidenceError(
                    "ima_not_covered", f"No beginning of the list replays to register 10 of {bank.hash.name}."
                )
        # 4. It belongs to the boot of the other registers, where they are given.
        self._judge_boot(registers)

    def _judge_boot(self, registers: Registers) -> None:
        """Only against the bank that it is of: whether that was quoted too is not for files to say."""
        found = None if self.head is None else boot_aggregate_of(self.head)
        for name, values in registers.items():
            bank = _BANKS[name]
            if REGISTER not in values or not all(register in values for register in aggregated(bank)):
                continue
            if found is None or found.algorithm == name:
                verify_boot_aggregate(self.head, bank=bank, values=values)
            if self.again:
                raise wrong_aggregate("The list has a second boot_aggregate.")


def _shown_aggregate(head: Record) -> str | None:
    found = boot_aggregate_of(head)
    return None if found is None else str(found)
