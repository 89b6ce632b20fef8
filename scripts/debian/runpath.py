"""Where do compiled parts look for libraries? Takes out what the build machine's linker left in them.

A RUNPATH to a folder that only the build machine has means nothing elsewhere, until somebody makes it there.
Paths that are relative to the file ($ORIGIN), as wheels with libraries of their own have them, stay.
"""

import struct
import sys
from pathlib import Path

_DYNAMIC = 6
_RPATH, _RUNPATH = 15, 29
_ENTRY = struct.Struct("<qQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")


def without_runpath(elf: bytes) -> bytes:
    """The same little-endian ELF64 file without absolute search paths; other files unchanged."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return elf
    raw = bytearray(elf)
    offset, (size, count) = struct.unpack_from("<Q", elf, 0x28)[0], struct.unpack_from("<HH", elf, 0x3A)
    sections = [_SECTION.unpack_from(elf, offset + index * size) for index in range(count)]
    for _, kind, _, _, start, length, strings, *_ in sections:
        if kind == _DYNAMIC:
            entries = list(_ENTRY.iter_unpack(elf[start : start + length]))
            kept = [one for one in entries if not _absolute(elf, one, sections[strings][4])]
            # The table ends with its first empty entry; as many as before keep its size.
            kept += [(0, 0)] * (len(entries) - len(kept))
            raw[start : start + length] = b"".join(_ENTRY.pack(*one) for one in kept)
    return bytes(raw)


def _absolute(elf: bytes, entry: tuple[int, int], strings: int) -> bool:
    tag, value = entry
    return tag in (_RPATH, _RUNPATH) and elf[strings + value : strings + value + 1] == b"/"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_bytes(without_runpath(path.read_bytes()))
