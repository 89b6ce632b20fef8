"""Is a selection read as the TPM wrote it, and are registers hashed in the TPM's order?"""

import hashlib
import struct

import pytest

from tests.tpm import forge
from tpm.errors import StructureError
from tpm.structures.algorithms import SHA256, SHA384
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.structures.reader import Reader

PCR7 = bytes.fromhex("eac9d272c4f07d5189e14d1626fbc3b16c8234538fe88127f29c2c36edb04f06")
PCR11 = bytes.fromhex("457040d352c9be3893642229b99cb41ab79c24f00c00bfc2dbfbac0f8cf207fe")


def read(raw: bytes) -> PcrSelection:
    return PcrSelection.read(Reader(raw, "selection"))


def test_a_selection_is_read_and_written_alike() -> None:
    raw = bytes.fromhex("00000001000b03800800")
    assert read(raw) == PcrSelection(raw, (("sha256", (7, 11)),)) == PcrSelection.of("sha256", [11, 7])


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_every_register_has_its_own_bit(bank: str) -> None:
    for pcr in range(24):
        written = PcrSelection.of(bank, [pcr])
        assert written.raw == forge.selection((bank, [pcr]))
        assert written.banks == ((bank, (pcr,)),)
    assert PcrSelection.of(bank, range(24)).banks == ((bank, tuple(range(24))),)


def test_banks_keep_their_order_and_the_reader_goes_on_behind_them() -> None:
    raw = forge.selection(("sha256", [7]), ("sha1", [0]), ("sha256", []))
    reader = Reader(b"\xee" + raw + b"\xdd")
    reader.take(1)
    assert PcrSelection.read(reader) == PcrSelection(raw, (("sha256", (7,)), ("sha1", (0,)), ("sha256", ())))
    assert reader.take(1) == b"\xdd"


def test_an_empty_selection_is_readable() -> None:
    assert read(bytes(4)).banks == ()
    assert PcrSelection.of("sha256", []).banks == (("sha256", ()),)


def test_a_selection_cut_anywhere_is_truncated() -> None:
    raw = forge.selection(("sha256", [0, 7]), ("sha384", [23]))
    for size in range(len(raw)):
        with pytest.raises(StructureError) as refusal:
            read(raw[:size])
        assert refusal.value.reason == "truncated"


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8, 255])
def test_pc_8_a_bitmap_of_another_size_is_refused(size: int) -> None:
    raw = struct.pack(">IHB", 1, 0x000B, size) + bytes([1]) * size + bytes(8)
    with pytest.raises(StructureError) as refusal:
        read(raw)
    assert refusal.value.reason == "bad_selection"
    assert read(struct.pack(">IHB", 1, 0x000B, 3) + b"\x01\0\0").banks == (("sha256", (0,)),)


@pytest.mark.parametrize("count", [17, 0x10000, 0xFFFFFFFF])
def test_pc_8_more_banks_than_hashes_exist_are_refused_at_once(count: int) -> None:
    with pytest.raises(StructureError) as refusal:
        read(struct.pack(">I", count) + forge.selection(("sha256", [0]))[4:] * 20)
    assert refusal.value.reason == "bad_selection"
    sixteen = forge.selection(*(("sha256", [0]),) * 16)
    assert len(read(sixteen).banks) == 16


@pytest.mark.parametrize("pcr", [-1, 24, 32, 2**31])
def test_pc_8_a_register_that_does_not_exist_cannot_be_selected(pcr: int) -> None:
    with pytest.raises(StructureError) as refusal:
        PcrSelection.of("sha256", [0, pcr])
    assert refusal.value.reason == "bad_selection"


@pytest.mark.parametrize("algorithm", [0x0000, 0x0010, 0x0012, 0x0027, 0xFFFF])
def test_an_unknown_bank_is_refused(algorithm: int) -> None:
    with pytest.raises(StructureError) as refusal:
        read(struct.pack(">IHB", 1, algorithm, 3) + b"\x01\0\0")
    assert refusal.value.reason == "unknown_bank"


def test_the_digest_is_the_one_a_tpm_computed() -> None:
    digest = pcr_digest(PcrSelection.of("sha256", [7, 11]), {"sha256": {11: PCR11, 7: PCR7}}, SHA256)
    assert digest.hex() == "0704061e292ebcb73d8882f8d970ca5620ca42b51f1b80163789453d5b1c7616"


def test_the_digest_follows_the_banks_order_and_not_the_values() -> None:
    values = {"sha1": {0: b"\x01" * 20}, "sha256": {7: PCR7}}
    one, other = (
        read(forge.selection(("sha256", [7]), ("sha1", [0]))),
        read(forge.selection(("sha1", [0]), ("sha256", [7]))),
    )
    assert pcr_digest(one, values, SHA256) == hashlib.sha256(PCR7 + b"\x01" * 20).digest()
    assert pcr_digest(other, values, SHA256) == hashlib.sha256(b"\x01" * 20 + PCR7).digest()


def test_the_digest_uses_the_given_hash_whatever_the_bank() -> None:
    digest = pcr_digest(PcrSelection.of("sha256", [7]), {"sha256": {7: PCR7}}, SHA384)
    assert digest == hashlib.sha384(PCR7).digest()


def test_a_missing_or_short_value_is_refused() -> None:
    selected = PcrSelection.of("sha256", [7, 11])
    for values, reason in (
        ({}, "pcr_missing"),
        ({"sha1": {7: PCR7, 11: PCR11}}, "pcr_missing"),
        ({"sha256": {7: PCR7}}, "pcr_missing"),
        ({"sha256": {7: PCR7, 11: PCR11[:-1]}}, "pcr_size"),
        ({"sha256": {7: PCR7 + b"\0", 11: PCR11}}, "pcr_size"),
    ):
        with pytest.raises(StructureError) as refusal:
            pcr_digest(selected, values, SHA256)
        assert refusal.value.reason == reason
