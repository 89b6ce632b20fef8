"""What are the next bytes, and were there enough of them?

One bounded reader for every big-endian TPM structure. It never returns less than it was asked for, and
whoever parses a whole structure calls `end`, so that nothing unread is ever believed or dropped.
"""

import struct

from tpm.errors import NoncanonicalError, StructureError

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class Reader:
    """Reads forward through one buffer; `what` names the structure in errors."""

    __slots__ = ("offset", "raw", "what")

    def __init__(self, raw: bytes, what: str = "structure") -> None:
        self.raw = raw
        self.offset = 0
        self.what = what

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        value: int = _U16.unpack(self.take(2))[0]
        return value

    def u32(self) -> int:
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def take(self, size: int) -> bytes:
        """The next `size` bytes; StructureError "truncated" when there are fewer."""
        end = self.offset + size
        if end > len(self.raw):
            raise truncated(self.what, end, len(self.raw))
        taken = self.raw[self.offset : end]
        self.offset = end
        return taken

    def sized(self, limit: int) -> bytes:
        """A TPM2B: its content without the 16-bit size; StructureError "oversized" above `limit` bytes."""
        size = self.u16()
        if size > limit:
            raise oversized(self.what, size, limit)
        return self.take(size)

    def end(self) -> None:
        """The structure ends here; NoncanonicalError "trailing_bytes" when it does not."""
        if self.offset != len(self.raw):
            raise trailing(self.what, self.offset, len(self.raw))


def truncated(what: str, needed: int, found: int) -> StructureError:
    return StructureError("truncated", f"The {what} needs at least {needed} bytes; {found} were sent.")


def oversized(what: str, size: int, limit: int) -> StructureError:
    return StructureError(
        "oversized", f"The {what} has a field of {size} bytes; at most {limit} are possible."
    )


def trailing(what: str, expected: int, found: int) -> NoncanonicalError:
    return NoncanonicalError("trailing_bytes", f"The {what} ends after {expected} bytes; {found} were sent.")
