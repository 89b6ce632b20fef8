"""Is a public area read strictly, and does its Name come from the bytes received?"""

import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.tpm import forge
from tpm.errors import NoncanonicalError, StructureError
from tpm.structures.algorithms import SHA256, SHA384
from tpm.structures.attributes import KNOWN
from tpm.structures.public import Scheme, Symmetric, parse_public, parse_sized_public, qualified_name

# An attestation key of swtpm, with its Name as the TPM gave it.
SWTPM_AK = bytes.fromhex(
    "00580023000b00050072000000100018000b00030010002066047b524e06a966901d3949b59546e2068369c51de5fd59fdbaa226"
    "a21f50e400203788e83124af346fc2cf1614126791f523bf2d453f41781b87566f0e37f675a8"
)
SWTPM_AK_NAME = bytes.fromhex("000bf364d14e56a49197c23a576fff86950787685ff0558c4c56330afdc48d32abe3")
ECDSA = forge.signing_scheme("ecdsa")
KEYS = ["rsa2048", "rsa3072", "rsa4096", "p256", "p384", "p521"]


def keyed_hash(scheme: bytes = forge.NULL, unique: bytes = bytes(32)) -> bytes:
    return struct.pack(">HHI", 0x0008, 0x000B, 0) + forge.sized(bytes(32)) + scheme + forge.sized(unique)


def symmetric_object(cipher: bytes = forge.AES128CFB) -> bytes:
    return (
        struct.pack(">HHI", 0x0025, 0x000B, 0x00020072) + forge.sized(b"") + cipher + forge.sized(bytes(32))
    )


def reason_of(raw: bytes) -> str:
    with pytest.raises(StructureError) as refusal:
        parse_public(raw)
    return refusal.value.reason


def test_a_key_of_a_tpm_is_read_whole_with_its_name() -> None:
    public = parse_sized_public(SWTPM_AK)
    assert public.raw == SWTPM_AK[2:]
    assert public.sized == SWTPM_AK
    assert public.name == SWTPM_AK_NAME
    assert (public.type, public.curve, public.attributes) == ("ecc", "p256", 0x00050072)
    assert (public.name_alg, public.auth_policy, public.symmetric, public.kdf) == (SHA256, b"", None, None)
    assert public.scheme == Scheme("ecdsa", SHA256)
    assert public.public_key().key_size == 256


@pytest.mark.parametrize("kind", KEYS)
def test_every_size_and_curve_gives_its_key_back(kind: str) -> None:
    key = forge.private_key(kind)
    public = parse_public(forge.public_area(key, attributes=forge.EK_LOW, symmetric=forge.AES256CFB))
    assert public.public_key() == key.public_key()
    assert public.symmetric == Symmetric("aes", 256, "cfb")
    if kind.startswith("rsa"):
        assert (public.key_bits, public.exponent, public.curve) == (int(kind[3:]), 65537, None)
    else:
        assert (public.key_bits, public.exponent, public.curve) == (None, None, kind)


@pytest.mark.parametrize("name_alg", ["sha1", "sha256", "sha384", "sha512"])
def test_the_name_is_of_the_hash_that_the_area_names(name_alg: str) -> None:
    raw = forge.public_area(forge.private_key("p256"), name_alg=name_alg)
    assert parse_public(raw).name == forge.name_of(raw)


def test_the_name_is_of_the_bytes_received_and_not_of_the_key() -> None:
    """A coordinate with or without its leading zero is the same point and another Name."""
    tail = struct.pack(">H", 3) + forge.NULL
    head = struct.pack(">HHIH", 0x0023, 0x000B, forge.CREDENTIAL, 0) + forge.NULL + ECDSA + tail
    key = next(
        key for key in iter(lambda: ec.generate_private_key(ec.SECP256R1()), None)
        if key.public_key().public_numbers().x < 1 << 248
    )  # fmt: skip
    point = key.public_key().public_numbers()
    y = forge.sized(point.y.to_bytes(32, "big"))
    kept, stripped = (head + forge.sized(point.x.to_bytes(size, "big")) + y for size in (32, 31))
    assert parse_public(kept).public_key() == parse_public(stripped).public_key() == key.public_key()
    assert parse_public(kept).name == forge.name_of(kept) != parse_public(stripped).name
    assert parse_public(stripped).name == forge.name_of(stripped)


def test_qualified_names_build_a_chain_from_the_hierarchy() -> None:
    parent = qualified_name(forge.ENDORSEMENT, SWTPM_AK_NAME)
    assert parent == b"\x00\x0b" + SHA256.digest(forge.ENDORSEMENT + SWTPM_AK_NAME)
    child = b"\x00\x0c" + bytes(48)
    assert qualified_name(parent, child) == b"\x00\x0c" + SHA384.digest(parent + child)
    with pytest.raises(StructureError):
        qualified_name(parent, b"\x00\x10")


@pytest.mark.parametrize("bit", range(32))
def test_a_reserved_attribute_bit_is_refused(bit: int) -> None:
    raw = forge.public_area(forge.private_key("p256"), attributes=1 << bit)
    if KNOWN >> bit & 1:
        assert parse_public(raw).attributes == 1 << bit
    else:
        assert reason_of(raw) == "reserved_attributes"


def test_keyed_hash_and_cipher_objects_are_read_and_have_no_public_key() -> None:
    sealed = parse_public(keyed_hash())
    hmac = parse_public(keyed_hash(bytes.fromhex("0005000b")))
    xor = parse_public(keyed_hash(bytes.fromhex("000a000b0022000b")))
    cipher = parse_public(symmetric_object())
    assert (sealed.type, sealed.scheme, sealed.kdf, len(sealed.auth_policy)) == ("keyedhash", None, None, 32)
    assert (hmac.scheme, hmac.kdf) == (Scheme("hmac", SHA256), None)
    assert (xor.scheme, xor.kdf) == (Scheme("xor", SHA256), Scheme("kdf1_sp800_108", SHA256))
    assert (cipher.type, cipher.symmetric) == ("symcipher", Symmetric("aes", 128, "cfb"))
    for public in (sealed, hmac, xor, cipher):
        with pytest.raises(StructureError) as refusal:
            public.public_key()
        assert refusal.value.reason == "bad_key"


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (forge.NULL, None),
        (bytes.fromhex("0014000b"), Scheme("rsassa", SHA256)),
        (bytes.fromhex("0016000c"), Scheme("rsapss", SHA384)),
        (bytes.fromhex("0017000b"), Scheme("oaep", SHA256)),
        (bytes.fromhex("0015"), Scheme("rsaes", None)),
    ],
)
def test_rsa_schemes_are_read(scheme: bytes, expected: Scheme | None) -> None:
    assert parse_public(forge.public_area(forge.private_key("rsa2048"), scheme=scheme)).scheme == expected


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("rsa2048", "0018000b"), ("rsa2048", "001a000b0001"), ("rsa2048", "0005000b"),
        ("rsa2048", "ffff000b"),
        ("p256", "0014000b"), ("p256", "001a000b0001"), ("p256", "001b000b"), ("p256", "001c000b"),
        ("p256", "001d000b"), ("p256", "0015"),
    ],
)  # fmt: skip
def test_qt_8_a_scheme_of_another_type_is_refused(kind: str, scheme: str) -> None:
    raw = forge.public_area(forge.private_key(kind), scheme=bytes.fromhex(scheme))
    assert reason_of(raw) == "unknown_scheme"


@pytest.mark.parametrize("curve", [0x0000, 0x0001, 0x0002, 0x0010, 0x0011, 0x0020, 0xFFFF])
def test_qt_8_other_curves_are_refused(curve: int) -> None:
    """P-192, P-224, BN_P256, BN_P638, SM2_P256 and what is none; secp256k1 has no number at all."""
    raw = forge.public_area(forge.private_key("p256"), scheme=ECDSA)
    offset = raw.index(ECDSA) + len(ECDSA)
    assert reason_of(raw[:offset] + struct.pack(">H", curve) + raw[offset + 2 :]) == "unknown_curve"


@pytest.mark.parametrize(
    "symmetric",
    ["000a000b", "000300a80043", "000600810043", "000600000043", "000600800045", "ffff00800043"],
)
def test_ciphers_that_no_parent_has_are_refused(symmetric: str) -> None:
    raw = forge.public_area(forge.private_key("p256"), symmetric=bytes.fromhex(symmetric))
    assert reason_of(raw) == "bad_symmetric"


@pytest.mark.parametrize("mode", ["0040", "0041", "0042", "0043", "0044", "0010"])
def test_cipher_modes_are_read(mode: str) -> None:
    read = parse_public(symmetric_object(bytes.fromhex("00060100" + mode))).symmetric
    expected = {"0040": "ctr", "0041": "ofb", "0042": "cbc", "0043": "cfb", "0044": "ecb", "0010": None}[mode]
    assert read == Symmetric("aes", 256, expected)


def test_a_cipher_object_without_a_cipher_is_refused() -> None:
    assert reason_of(symmetric_object(forge.NULL)) == "bad_symmetric"


@pytest.mark.parametrize("size", [1, 20, 31, 33, 48, 64])
def test_a_policy_is_empty_or_as_long_as_the_names_hash(size: int) -> None:
    raw = forge.public_area(forge.private_key("p256"), policy=bytes(size))
    assert reason_of(raw) == "bad_policy_size"
    assert parse_public(forge.public_area(forge.private_key("p256"), policy=bytes(32))).auth_policy == bytes(
        32
    )


@pytest.mark.parametrize("kind", [0x0000, 0x0006, 0x0010, 0x0018, 0xFFFF])
def test_an_object_of_no_type_is_refused(kind: int) -> None:
    raw = forge.public_area(forge.private_key("p256"))
    assert reason_of(struct.pack(">H", kind) + raw[2:]) == "unknown_object"


def points() -> dict[str, tuple[bytes, bytes]]:
    numbers = forge.private_key("p256").public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    return {
        "off the curve": (x, (numbers.y ^ 1).to_bytes(32, "big")),
        "infinity as zeros": (bytes(32), bytes(32)),
        "infinity as nothing": (b"", b""),
        "x = p": (p.to_bytes(32, "big"), y),
        "x + p, one byte longer": ((numbers.x + p).to_bytes(33, "big"), y),
        "y + p": (x, (numbers.y + p).to_bytes(33, "big")),
        "a zero too many": (b"\0" + x, y),
        "x and y swapped": (y, x),
        "one coordinate": (x, b""),
    }


@pytest.mark.parametrize("which", points())
def test_qt_9_a_point_that_is_none_gives_no_key(which: str) -> None:
    x, y = points()[which]
    tail = struct.pack(">H", 3) + forge.NULL + forge.sized(x) + forge.sized(y)
    head = struct.pack(">HHIH", 0x0023, 0x000B, forge.AK, 0) + forge.NULL + ECDSA
    with pytest.raises(StructureError) as refusal:
        parse_public(head + tail).public_key()
    assert refusal.value.reason == "bad_key"


@pytest.mark.parametrize("modulus", [b"", b"\0", b"\x01", b"\x03", bytes(256)])
def test_a_modulus_that_is_none_gives_no_key(modulus: bytes) -> None:
    head = struct.pack(">HHIH", 0x0001, 0x000B, forge.AK, 0) + forge.NULL * 2 + struct.pack(">HI", 2048, 0)
    with pytest.raises(StructureError) as refusal:
        parse_public(head + forge.sized(modulus)).public_key()
    assert refusal.value.reason == "bad_key"


def test_rsa_exponents_are_read_and_zero_means_65537() -> None:
    key = forge.private_key("rsa2048")
    raw = forge.public_area(key)
    offset = raw.index(struct.pack(">HI", 2048, 0)) + 2
    odd = parse_public(raw[:offset] + struct.pack(">I", 3) + raw[offset + 4 :])
    assert (parse_public(raw).exponent, odd.exponent) == (65537, 3)
    numbers = odd.public_key().public_numbers()
    assert isinstance(numbers, rsa.RSAPublicNumbers)
    assert numbers.e == 3


ALL = {
    **{
        kind: forge.public_area(forge.private_key(kind), symmetric=forge.AES128CFB)
        for kind in ("rsa2048", "p256")
    },
    "signing": forge.public_area(forge.private_key("p521"), scheme=ECDSA),
    "sealed": keyed_hash(),
    "hmac": keyed_hash(bytes.fromhex("0005000b")),
    "cipher": symmetric_object(),
}


@pytest.mark.parametrize("raw", ALL.values(), ids=ALL.keys())
def test_qt_10_every_truncation_and_every_trailing_byte_is_refused(raw: bytes) -> None:
    for size in range(len(raw)):
        assert reason_of(raw[:size]) in ("truncated", "bad_policy_size")
    for tail in (b"\0", raw):
        with pytest.raises(NoncanonicalError) as refusal:
            parse_public(raw + tail)
        assert refusal.value.reason == "trailing_bytes"


def test_qt_10_outer_and_inner_length_must_agree() -> None:
    raw = forge.public_area(forge.private_key("p256"), scheme=ECDSA)
    assert parse_sized_public(forge.sized(raw)).raw == raw
    for outer, reason in ((len(raw) - 1, "trailing_bytes"), (len(raw) + 1, "truncated"), (1025, "oversized")):
        with pytest.raises(StructureError) as refusal:
            parse_sized_public(struct.pack(">H", outer) + raw)
        assert refusal.value.reason == reason
    with pytest.raises(NoncanonicalError):
        parse_sized_public(struct.pack(">H", len(raw) + 1) + raw + b"\0")
    with pytest.raises(StructureError):
        parse_sized_public(forge.sized(raw[:-1]))
    with pytest.raises(StructureError):
        parse_sized_public(forge.sized(b""))
