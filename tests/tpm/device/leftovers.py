"""What is left in a TPM, asked past the device under test."""

import struct

from tpm.swtpm import SoftwareTpm

_HANDLES = 1
_RANGES = {"transient": 0x80000000, "loaded sessions": 0x02000000, "saved sessions": 0x03000000}


def leftovers(tpm: SoftwareTpm) -> dict[str, list[int]]:
    """The handles of each kind that the TPM still has; empty when it is as clean as after a start."""
    found = {}
    for kind, first in _RANGES.items():
        # TPM2_GetCapability of handles: moreData, capability, count, handles.
        answer = tpm.execute(0x17A, (), struct.pack(">III", _HANDLES, first, 64), authorized=False)
        (count,) = struct.unpack_from(">I", answer, 5)
        handles = [h for h in struct.unpack_from(f">{count}I", answer, 9) if h >> 24 == first >> 24]
        if handles:
            found[kind] = handles
    return found
