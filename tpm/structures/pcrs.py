"""Which registers does a structure select, and what do their values hash to?"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tpm.errors import StructureError
from tpm.structures.algorithms import HASHES, Hash, hash_by_name
from tpm.structures.reader import Reader, truncated

PCR_COUNT = 24
"""Registers 0 to 23, which is what PC Client TPMs have; more would need a wider bitmap than we accept."""

_SELECT_SIZE = 3
_BANKS_LIMIT = 16
_COUNT = struct.Struct(">I")
_BANK = struct.Struct(">HBBBB")
_REGISTERS = tuple(
    tuple(tuple(8 * byte + bit for bit in range(8) if bits >> bit & 1) for bits in range(256))
    for byte in range(3)
)
"""For each of the three bytes of a bitmap and each of its values, the registers that it selects."""


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """TPML_PCR_SELECTION (TPM 2.0 Part 2, 10.9.7): hash banks in the order given, registers ascending in
    each.

    A selection of nothing, a bank that is named twice and several banks can all be written down and so are
    parsed; whether they are acceptable is for the verifier to say.
    """

    raw: bytes
    banks: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def read(cls, reader: Reader) -> "PcrSelection":
        """The selection at the reader's place, which moves behind it."""
        selection, reader.offset = read_selection(reader.raw, reader.offset, reader.what)
        return selection

    @classmethod
    def of(cls, bank: str, pcrs: Iterable[int]) -> "PcrSelection":
        """The canonical selection of these registers of one bank."""
        bitmap = 0
        for pcr in pcrs:
            if not 0 <= pcr < PCR_COUNT:
                raise StructureError("bad_selection", f"Register {pcr} is not one of 0 to {PCR_COUNT - 1}.")
            bitmap |= 1 << pcr
        header = struct.pack(">IHB", 1, hash_by_name(bank).id, _SELECT_SIZE)
        raw = header + bitmap.to_bytes(_SELECT_SIZE, "little")
        return read_selection(raw, 0, "PCR selection")[0]


def read_selection(raw: bytes, offset: int, what: str) -> tuple[PcrSelection, int]:
    """The selection at `offset` and the offset behind it. Flat, for it is part of every quote's parsing."""
    try:
        (count,) = _COUNT.unpack_from(raw, offset)
    except struct.error:
        raise truncated(what, offset + 4, len(raw)) from None
    if count > _BANKS_LIMIT:
        raise StructureError("bad_selection", f"The {what} selects {count} banks; at most 16 are possible.")
    end = offset + 4 + _BANK.size * count
    return _decode(raw[offset:end], count, what), end


# The devices of a fleet quote the same few selections, so that nearly every one was decoded before.
@lru_cache(maxsize=256)
def _decode(raw: bytes, count: int, what: str) -> PcrSelection:
    banks = []
    for start in range(4, 4 + _BANK.size * count, _BANK.size):
        if start + _BANK.size > len(raw):
            raise truncated(what, 4 + _BANK.size * count, len(raw))
        algorithm, size, low, middle, high = _BANK.unpack_from(raw, start)
        if size != _SELECT_SIZE:
            raise StructureError("bad_selection", f"The {what} has a bitmap of {size} bytes; 3 are expected.")
        bank = HASHES.get(algorithm)
        if bank is None:
            raise StructureError("unknown_bank", f"The {what} selects the unknown bank 0x{algorithm:04x}.")
        banks.append((bank.name, _REGISTERS[0][low] + _REGISTERS[1][middle] + _REGISTERS[2][high]))
    return PcrSelection(raw, tuple(banks))


def pcr_digest(selection: PcrSelection, values: Mapping[str, Mapping[int, bytes]], hash: Hash) -> bytes:
    """The digest that a TPM computes over these registers (TPM 2.0 Part 1, 17.6).

    Order is the selection's: its banks as they stand, registers ascending in each. `hash` is the signing
    scheme's for a quote and the session's for a policy; the bank's own has no part in it. `values` may hold
    more than is selected. StructureError "pcr_missing" or "pcr_size" when a selected value is not there or
    not as long as its bank's hash.
    """
    content = bytearray()
    for bank, pcrs in selection.banks:
        size = hash_by_name(bank).size
        held = values.get(bank, {})
        for pcr in pcrs:
            value = held.get(pcr)
            if value is None:
                raise StructureError(
                    "pcr_missing", f"There is no value for register {pcr} of the {bank} bank."
                )
            if len(value) != size:
                raise StructureError(
                    "pcr_size", f"Register {pcr} of {bank} has {len(value)} bytes, not {size}."
                )
            content += value
    return hash.digest(bytes(content))
