"""Is an attestation read for what it is, and is everything else refused by name?"""

import struct

import pytest

from tests.tpm import forge
from tpm.errors import EvidenceError, NoncanonicalError, StructureError
from tpm.structures.attest import ClockInfo, parse_certification, parse_quote

# A quote by swtpm with a P-256 attestation key in the endorsement hierarchy: sha256:0,7,11.
SWTPM_QUOTE = bytes.fromhex(
    "ff54434780180022000bf3f3fdd9af9c8482cdf5103cf375522fa345daf898313a30647168cd25c446ef"
    "001000112233445566778899aabbccddeeff00000000000388a0000000010000000001201910230016363600000001"
    "000b038108000020a27b9b5b450e96569a07cd621649a2b258e1c7f40d277f3cc342b57ef250ea4f"
)
NAME = b"\x00\x0b" + bytes(range(32))
SIGNER = b"\x00\x0b" + b"\x55" * 32
QUOTE = forge.quote(forge.selection(("sha256", [0, 7])), b"\xdd" * 32, signer=SIGNER)
CERTIFICATION = forge.certification(NAME, SIGNER, signer=SIGNER)


def test_a_quote_of_a_tpm_is_read_whole() -> None:
    quote = parse_quote(SWTPM_QUOTE)
    assert quote.raw == SWTPM_QUOTE
    assert (
        quote.qualified_signer.hex() == "000bf3f3fdd9af9c8482cdf5103cf375522fa345daf898313a30647168cd25c446ef"
    )
    assert quote.extra_data.hex() == "00112233445566778899aabbccddeeff"
    assert quote.clock == ClockInfo(clock=0x388A0, reset_count=1, restart_count=0, safe=True)
    assert quote.firmware_version == 0x2019102300163636
    assert quote.selection.banks == (("sha256", (0, 7, 11)),)
    assert quote.pcr_digest.hex() == "a27b9b5b450e96569a07cd621649a2b258e1c7f40d277f3cc342b57ef250ea4f"


def test_a_certification_is_read_whole() -> None:
    certification = parse_certification(CERTIFICATION)
    assert certification.raw == CERTIFICATION
    assert (certification.name, certification.qualified_name) == (NAME, SIGNER)
    assert (certification.qualified_signer, certification.extra_data) == (SIGNER, forge.NONCE)
    assert certification.clock == ClockInfo(250_000, 7, 1, True)


def test_clock_counters_are_read_at_their_extremes() -> None:
    top = (2**64 - 1, 2**32 - 1, 2**32 - 1, 0)
    assert parse_quote(forge.quote(bytes(4), b"", clock=top)).clock == ClockInfo(*top[:3], safe=False)


KINDS = {
    0x8014: "NV certification", 0x8015: "command audit", 0x8016: "session audit",
    0x8017: "certification of a key", 0x8018: "quote", 0x8019: "time",
    0x801A: "creation", 0x801C: "NV digest",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "called"), KINDS.items())
def test_every_other_kind_of_attestation_is_refused_by_name(kind: int, called: str) -> None:
    for parse, own, raw in ((parse_quote, 0x8018, QUOTE), (parse_certification, 0x8017, CERTIFICATION)):
        relabelled = raw[:4] + struct.pack(">H", kind) + raw[6:]
        if kind == own:
            parse(relabelled)
            continue
        with pytest.raises(EvidenceError, match=called) as refusal:
            parse(relabelled)
        assert refusal.value.reason == "wrong_type"


def test_a_type_that_does_not_exist_is_no_attestation() -> None:
    for kind in (0x0000, 0x8013, 0x801B, 0x801D, 0x8021, 0x1880, 0xFFFF):
        with pytest.raises(StructureError) as refusal:
            parse_quote(QUOTE[:4] + struct.pack(">H", kind) + QUOTE[6:])
        assert refusal.value.reason == "unknown_type"


def test_another_magic_number_is_refused_before_anything_else_is_believed() -> None:
    for magic in (0, 0xFF544348, 0x474354FF, 0xFFFFFFFF):
        for parse in (parse_quote, parse_certification):
            with pytest.raises(EvidenceError) as refusal:
                parse(struct.pack(">I", magic) + b"\x99" * 40)
            assert refusal.value.reason == "not_tpm_generated"


@pytest.mark.parametrize("safe", [2, 0x80, 0xFF])
def test_a_flag_is_zero_or_one(safe: int) -> None:
    with pytest.raises(StructureError) as refusal:
        parse_quote(forge.quote(bytes(4), b"", clock=(1, 1, 1, safe)))
    assert refusal.value.reason == "bad_boolean"


@pytest.mark.parametrize(
    ("field", "longest"), [("signer", 66), ("extra", 66), ("digest", 64), ("name", 66), ("qualified", 66)]
)
def test_a_field_is_as_long_as_a_tpm_can_write_it_and_no_longer(field: str, longest: int) -> None:
    def build(size: int) -> None:
        content = b"\x07" * size
        if field in ("signer", "extra"):
            parse_quote(forge.quote(bytes(4), b"", **{field: content}))
        elif field == "digest":
            parse_quote(forge.quote(bytes(4), content))
        else:
            parse_certification(forge.certification(**{"name": NAME, field: content}))

    build(longest)
    with pytest.raises(StructureError) as refusal:
        build(longest + 1)
    assert refusal.value.reason == "oversized"


@pytest.mark.parametrize(("parse", "raw"), [(parse_quote, QUOTE), (parse_certification, CERTIFICATION)])
def test_qt_10_every_truncation_and_every_trailing_byte_is_refused(parse: object, raw: bytes) -> None:
    assert callable(parse)
    parse(raw)
    for size in range(len(raw)):
        with pytest.raises(StructureError) as refusal:
            parse(raw[:size])
        assert refusal.value.reason == "truncated"
    for tail in (b"\0", b"\xff", raw, bytes(4096)):
        with pytest.raises(NoncanonicalError) as refusal:
            parse(raw + tail)
        assert refusal.value.reason == "trailing_bytes"


@pytest.mark.parametrize("step", [-1, 1])
def test_qt_10_a_length_that_is_off_by_one_never_reads_as_a_quote(step: int) -> None:
    """Signer, qualifying data and digest; where the bytes still have a shape, it is another quote than was
    signed.
    """
    offsets = {"signer": 6, "extra": 8 + len(SIGNER), "digest": len(QUOTE) - 34}
    for offset in offsets.values():
        (size,) = struct.unpack_from(">H", QUOTE, offset)
        with pytest.raises((StructureError, EvidenceError)):
            parse_quote(QUOTE[:offset] + struct.pack(">H", size + step) + QUOTE[offset + 2 :])


def test_qt_10_a_sized_attestation_is_not_the_attestation() -> None:
    """The wire carries TPMS_ATTEST without the size of TPM2B_ATTEST."""
    with pytest.raises(EvidenceError) as refusal:
        parse_quote(forge.sized(QUOTE))
    assert refusal.value.reason == "not_tpm_generated"


def test_qt_10_little_endian_structures_are_refused() -> None:
    head = struct.pack("<IHH", 0xFF544347, 0x8018, 34) + SIGNER + struct.pack("<H", 32) + forge.NONCE
    with pytest.raises(EvidenceError) as refusal:
        parse_quote(head + struct.pack("<QIIBQ", 250_000, 7, 1, 1, 1) + bytes(40))
    assert refusal.value.reason == "not_tpm_generated"
    with pytest.raises(StructureError) as unreadable:
        parse_quote(QUOTE[:4] + struct.pack("<H", 0x8018) + QUOTE[6:])
    assert unreadable.value.reason == "unknown_type"


@pytest.mark.parametrize(("algorithm", "size"), [(0x000B, 32), (0x000C, 48), (0x000D, 64)])
def test_qt_10_names_of_longer_hashes_are_read(algorithm: int, size: int) -> None:
    name = struct.pack(">H", algorithm) + b"\x42" * size
    assert parse_quote(forge.quote(bytes(4), b"", signer=name)).qualified_signer == name
    assert parse_certification(forge.certification(name, name)).name == name
