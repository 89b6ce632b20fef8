"""Which variable was measured, and what did it hold?

UEFI_VARIABLE_DATA (Platform Firmware Profile 1.06, 10.2.6): GUID, length of the name in UTF-16 units,
length of the data in bytes, name without NUL, data.
"""

import codecs
import struct
from typing import NamedTuple

from tpm.errors import StructureError

_HEADER = struct.Struct("<16sQQ")
_NAME_LIMIT = 1024


class Variable(NamedTuple):
    """A variable as the firmware measured it. The name is exact: "SecureBoot\\0" is another variable."""

    namespace: bytes
    """The vendor's GUID, 16 wire bytes."""
    name: str
    data: bytes


def parse_variable(raw: bytes, *, trailing: int = 0) -> Variable:
    """The variable in an event's data. StructureError "efi_variable".

    `trailing` bytes may follow, which are not part of it: shim measures up to seven too many with its
    authorities.
    """
    if len(raw) < _HEADER.size:
        raise _wrong(f"it has {len(raw)} bytes, at least {_HEADER.size} are needed")
    namespace, units, size = _HEADER.unpack_from(raw)
    # 1. The name is a name: no NUL in it, no half characters.
    if not 1 <= units <= _NAME_LIMIT:
        raise _wrong(f"its name has {units} characters")
    start = _HEADER.size + 2 * units
    end = start + size
    # 2. The lengths add up to what there is.
    if not end <= len(raw) <= end + trailing:
        raise _wrong(f"its lengths add up to {end} bytes, not {len(raw)}")
    try:
        name, _ = codecs.utf_16_le_decode(raw[_HEADER.size : start], "strict", True)
    except UnicodeDecodeError:
        raise _wrong("its name is not UTF-16") from None
    if "\0" in name:
        raise _wrong("its name has a NUL in it")
    return Variable(namespace, name, raw[start:end])


def _wrong(why: str) -> StructureError:
    return StructureError("efi_variable", f"A measured variable cannot be read: {why}.")
