"""From where was an image loaded?

UEFI_IMAGE_LOAD_EVENT (Platform Firmware Profile 1.06, 10.2.3). Only the event's digest says *what* was
loaded.
"""

import struct
from typing import NamedTuple

from tpm.errors import StructureError
from tpm.eventlog.efi.device_path import device_path_text, file_of

_HEADER = struct.Struct("<QQQQ")


class ImageLoad(NamedTuple):
    """What the firmware notes beside the digest of an image. All of it is a hint."""

    size: int
    """Bytes in memory."""
    device_path: bytes
    """Empty if there is none, as of what shim or GRUB loads from memory."""

    @property
    def path(self) -> str | None:
        """The device path as text; None if it is none."""
        return device_path_text(self.device_path)

    @property
    def file(self) -> str | None:
        """The file that the path ends with; None if it names none."""
        return file_of(self.device_path)


def parse_image_load(raw: bytes) -> ImageLoad:
    """The notes in an event's data; bytes behind the path are not read. StructureError "image_load"."""
    if len(raw) < _HEADER.size:
        raise StructureError("image_load", f"An image's event has {len(raw)} bytes, not {_HEADER.size}.")
    _, size, _, length = _HEADER.unpack_from(raw)
    if length > len(raw) - _HEADER.size:
        raise StructureError("image_load", f"An image's device path claims {length} bytes.")
    return ImageLoad(size, raw[_HEADER.size : _HEADER.size + length])
