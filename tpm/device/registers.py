"""What do the registers hold now, and how is a policy over them met?"""

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from tpm2_pytss.constants import TPM2_CAP
from tpm2_pytss.types import TPML_PCR_SELECTION

from tpm.device.connection import Connection, LoadedKey
from tpm.device.refusals import explained
from tpm.errors import DeviceError
from tpm.structures.algorithms import HASHES, Hash
from tpm.structures.pcrs import PcrSelection, read_selection

Values = dict[str, dict[int, bytes]]
T = TypeVar("T")

ATTEMPTS = 16
"""How often something is tried anew because registers moved meanwhile; a busy PCR 10 moves with every new
file.
"""


def read_registers(tpm: Connection, selection: PcrSelection) -> Values:
    """The values of the selected registers at one moment. DeviceError "pcr_missing" for what the TPM has
    not.
    """
    for _ in range(ATTEMPTS):
        values, moved = _read_once(tpm, selection)
        if not moved:
            return values
    raise DeviceError("pcr_unstable", f"The registers moved during each of {ATTEMPTS} readings; try again.")


def banks(tpm: Connection) -> tuple[str, ...]:
    """The banks with registers in them ("sha1", "sha256"…), in the TPM's order; unknown hashes are left
    out.
    """
    return tuple(bank for bank, pcrs in allocation(tpm).items() if pcrs)


def allocation(tpm: Connection) -> dict[str, tuple[int, ...]]:
    """The registers of each bank that the TPM has or could be given, in its order; unknown hashes are left
    out.
    """
    raw = tpm.capability(TPM2_CAP.PCRS, 0, 1)
    (count,) = struct.unpack_from(">I", raw)
    offset, found = 4, {}
    for _ in range(count):
        algorithm, size = struct.unpack_from(">HB", raw, offset)
        bitmap = int.from_bytes(raw[offset + 3 : offset + 3 + size], "little")
        if algorithm in HASHES:
            found[HASHES[algorithm].name] = tuple(n for n in range(8 * size) if bitmap >> n & 1)
        offset += 3 + size
    return found


def while_registers_hold(
    tpm: Connection,
    selection: PcrSelection | None,
    hash: Hash,
    use: Callable[[Any], T],
    *,
    salt: LoadedKey | None = None,
) -> T:
    """Call `use` with a session that satisfies PolicyPCR over the registers as they are; again when they
    moved.

    Whether their values are the right ones the TPM decides: DeviceError "policy_failed" if not.
    """
    for attempt in range(ATTEMPTS):
        try:
            with tpm.policy_session(hash, salt=salt) as session:
                if selection is not None:
                    with explained("take the registers into the policy"):
                        tpm.esapi.policy_pcr(session, b"", to_library(selection))
                return use(session)
        except DeviceError as error:
            if error.reason != "pcr_changed" or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def to_library(selection: PcrSelection) -> TPML_PCR_SELECTION:
    """The selection, byte for byte, as tpm2-pytss wants it."""
    listed, _ = TPML_PCR_SELECTION.unmarshal(selection.raw)
    return listed


def _read_once(tpm: Connection, selection: PcrSelection) -> tuple[Values, bool]:
    """The values, and whether a register moved between the commands that it takes to read them."""
    values: Values = {bank: {} for bank, _ in selection.banks}
    counters = set()
    for bank, pcrs in selection.banks:
        left = tuple(pcrs)
        while left:
            with explained("read its registers"):
                counter, answered, digests = tpm.esapi.pcr_read(to_library(PcrSelection.of(bank, left)))
            counters.add(int(counter))
            given, _ = read_selection(bytes(answered.marshal()), 0, "TPM's answer")
            read = dict(given.banks).get(bank, ())
            if not read:
                raise DeviceError("pcr_missing", f"This TPM has no register {left[0]} in its {bank} bank.")
            values[bank] |= {pcr: bytes(digests[place]) for place, pcr in enumerate(read)}
            left = tuple(pcr for pcr in left if pcr not in values[bank])
    return values, len(counters) > 1
