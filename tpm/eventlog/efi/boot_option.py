"""What would a boot option start?

EFI_LOAD_OPTION (UEFI 2.10, 3.1.3): attributes, length of the paths, description as NUL-terminated UTF-16,
device paths, optional data. BootOrder is a list of 16-bit numbers.
"""

import codecs
import struct
from typing import NamedTuple

from tpm.errors import StructureError
from tpm.eventlog.efi.device_path import device_path_text

_HEADER = struct.Struct("<IH")
_ACTIVE = 1


class BootOption(NamedTuple):
    """The content of a variable such as Boot0001."""

    description: str
    device_path: bytes
    active: bool

    @property
    def path(self) -> str | None:
        """The device path as text; None if it is none. Made when asked for: most are never read."""
        return device_path_text(self.device_path)


def parse_boot_option(raw: bytes) -> BootOption:
    """StructureError "boot_option"."""
    if len(raw) < _HEADER.size:
        raise StructureError("boot_option", f"A boot option has {len(raw)} bytes.")
    attributes, length = _HEADER.unpack_from(raw)
    end = raw.find(b"\0\0", _HEADER.size)
    if end >= 0 and (end - _HEADER.size) % 2:
        # The first of the two is the upper half of a character before the end.
        end += 1
    if end < 0 or raw[end : end + 2] != b"\0\0":
        raise StructureError("boot_option", "A boot option's description has no end.")
    start = end + 2
    if start + length > len(raw):
        raise StructureError("boot_option", f"A boot option's paths claim {length} bytes.")
    description = codecs.utf_16_le_decode(raw[_HEADER.size : end], "replace", True)[0]
    return BootOption(description, raw[start : start + length], bool(attributes & _ACTIVE))


def parse_boot_order(raw: bytes) -> tuple[int, ...]:
    """StructureError "boot_order" when it is no list of 16-bit numbers."""
    if len(raw) % 2:
        raise StructureError("boot_order", f"BootOrder has {len(raw)} bytes.")
    return struct.unpack(f"<{len(raw) // 2}H", raw)
