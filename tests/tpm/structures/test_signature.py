"""Is a signature read for what it says it is?"""

import struct

import pytest

from tests.tpm import forge
from tpm.errors import NoncanonicalError, StructureError
from tpm.structures.algorithms import SHA256, SHA384, hash_by_name
from tpm.structures.signature import Signature, parse_signature

RSA = struct.pack(">HH", 0x0014, 0x000B) + forge.sized(bytes(range(256)))
ECC = forge.ecdsa_signature(5, 7)


def test_the_three_schemes_are_read_with_their_hash() -> None:
    assert parse_signature(RSA) == Signature(RSA, "rsassa", SHA256, bytes(range(256)))
    pss = struct.pack(">HH", 0x0016, 0x000C) + forge.sized(b"\x09" * 384)
    assert parse_signature(pss) == Signature(pss, "rsapss", SHA384, b"\x09" * 384)
    assert parse_signature(ECC) == Signature(ECC, "ecdsa", SHA256, b"", 5, 7)


@pytest.mark.parametrize("hash", ["sha1", "sha256", "sha384", "sha512"])
def test_known_hashes_are_read_and_left_to_the_verifier(hash: str) -> None:
    assert parse_signature(forge.ecdsa_signature(1, 1, hash=hash)).hash is hash_by_name(hash)


def test_stripped_and_padded_numbers_are_the_same_numbers() -> None:
    short = struct.pack(">HH", 0x0018, 0x000B) + forge.sized(b"\x05") + forge.sized(b"\x07")
    read = parse_signature(short)
    assert (read.r, read.s) == (5, 7)


OTHERS = {"hmac": 0x0005, "null": 0x0010, "ecdaa": 0x001A, "sm2": 0x001B, "schnorr": 0x001C, "none": 0xFFFF}


@pytest.mark.parametrize("algorithm", OTHERS.values(), ids=OTHERS.keys())
def test_qt_8_other_signatures_are_refused_at_any_length(algorithm: int) -> None:
    for rest in (b"", b"\x00\x0b", RSA[2:], ECC[2:]):
        with pytest.raises(StructureError, match=f"0x{algorithm:04x}") as refusal:
            parse_signature(struct.pack(">H", algorithm) + rest)
        assert refusal.value.reason == "unknown_signature"


@pytest.mark.parametrize("hash", [0x0000, 0x0010, 0x0012, 0x0027, 0xFFFF])
def test_qt_8_a_hash_that_we_do_not_compute_is_refused(hash: int) -> None:
    for raw in (RSA, ECC):
        with pytest.raises(StructureError) as refusal:
            parse_signature(raw[:2] + struct.pack(">H", hash) + raw[4:])
        assert refusal.value.reason == "unknown_hash"


def test_qt_9_numbers_longer_than_any_curve_are_refused() -> None:
    assert parse_signature(forge.ecdsa_signature(2**521, 2**521, size=66)).s == 2**521
    head = struct.pack(">HH", 0x0018, 0x000B)
    for r, s in ((bytes(67), b"\x01"), (b"\x01", bytes(67)), (bytes(67), bytes(67))):
        with pytest.raises(StructureError) as refusal:
            parse_signature(head + forge.sized(r) + forge.sized(s))
        assert refusal.value.reason == "oversized"


def test_a_signature_longer_than_rsa_4096_is_refused() -> None:
    assert len(parse_signature(RSA[:4] + forge.sized(bytes(512))).value) == 512
    with pytest.raises(StructureError) as refusal:
        parse_signature(RSA[:4] + forge.sized(bytes(513)))
    assert refusal.value.reason == "oversized"


@pytest.mark.parametrize("raw", [RSA, ECC], ids=["rsa", "ecc"])
def test_qt_10_every_truncation_and_every_trailing_byte_is_refused(raw: bytes) -> None:
    for size in range(len(raw)):
        with pytest.raises(StructureError) as refusal:
            parse_signature(raw[:size])
        assert refusal.value.reason == "truncated"
    for tail in (b"\0", raw):
        with pytest.raises(NoncanonicalError) as trailing:
            parse_signature(raw + tail)
        assert trailing.value.reason == "trailing_bytes"


def test_qt_10_little_endian_signatures_are_refused() -> None:
    with pytest.raises(StructureError) as refusal:
        parse_signature(struct.pack("<HHH", 0x0014, 0x000B, 256) + bytes(256))
    assert refusal.value.reason == "unknown_signature"
