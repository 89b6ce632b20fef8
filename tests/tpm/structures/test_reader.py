"""Does the reader give exactly what was asked for, or say why not?"""

import pytest

from tpm.errors import NoncanonicalError, StructureError
from tpm.structures.reader import Reader


def test_reads_big_endian_numbers_and_sized_fields_to_the_end() -> None:
    reader = Reader(bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f 0002 aabb cc"))
    assert reader.u8() == 0x01
    assert reader.u16() == 0x0203
    assert reader.u32() == 0x04050607
    assert reader.u64() == 0x08090A0B0C0D0E0F
    assert reader.sized(2) == b"\xaa\xbb"
    assert reader.take(1) == b"\xcc"
    reader.end()


@pytest.mark.parametrize("read", ["u8", "u16", "u32", "u64"])
def test_a_number_that_is_cut_short_is_truncated(read: str) -> None:
    width = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}[read]
    getattr(Reader(bytes(width)), read)()
    with pytest.raises(StructureError) as refusal:
        getattr(Reader(bytes(width - 1)), read)()
    assert refusal.value.reason == "truncated"


def test_a_size_beyond_the_buffer_is_truncated() -> None:
    with pytest.raises(StructureError) as refusal:
        Reader(b"\x00\x03ab").sized(64)
    assert refusal.value.reason == "truncated"


def test_a_size_beyond_the_limit_is_oversized_even_if_the_bytes_are_there() -> None:
    assert Reader(b"\x00\x02ab").sized(2) == b"ab"
    with pytest.raises(StructureError) as refusal:
        Reader(b"\x00\x03abc").sized(2)
    assert refusal.value.reason == "oversized"


def test_unread_bytes_are_noncanonical_at_the_end() -> None:
    reader = Reader(b"ab", "greeting")
    reader.take(1)
    with pytest.raises(NoncanonicalError, match="greeting ends after 1 bytes; 2 were sent") as refusal:
        reader.end()
    assert refusal.value.reason == "trailing_bytes"
