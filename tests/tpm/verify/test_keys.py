"""Which keys may attest, and by whose names?"""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.tpm import forge
from tpm.errors import AttestationError, EvidenceError
from tpm.structures.algorithms import SHA1, SHA256, SHA384, SHA512, Hash
from tpm.structures.public import parse_public
from tpm.verify.keys import AttestationKey, accept_attestation_key, bare_attestation_key, expected_signers

ECDSA = forge.signing_scheme("ecdsa")
RSASSA = forge.signing_scheme("rsassa")


def accept(kind: str = "p256", **shape: Any) -> AttestationKey:
    healthy = {"scheme": RSASSA if kind.startswith("rsa") else ECDSA}
    return accept_attestation_key(parse_public(forge.public_area(forge.private_key(kind), **healthy | shape)))


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationError) as refusal:
        call()
    return refusal.value.reason


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "rsa4096", "p256", "p384", "p521"])
@pytest.mark.parametrize("name_alg", ["sha256", "sha384"])
@pytest.mark.parametrize("hash", ["sha256", "sha384"])
def test_attestation_keys_of_every_kind_are_accepted(kind: str, name_alg: str, hash: str) -> None:
    for name in ("rsassa", "rsapss") if kind.startswith("rsa") else ("ecdsa",):
        ak = accept(kind, scheme=forge.signing_scheme(name, hash), name_alg=name_alg)
        assert (ak.scheme, ak.hash.name) == (name, hash)
        assert ak.key == forge.private_key(kind).public_key()
        assert ak.name == forge.name_of(ak.public.raw)


@pytest.mark.parametrize("bit", range(32))
def test_ac_4_each_attribute_is_as_it_must_be(bit: int) -> None:
    """noDA alone may be added; a reserved bit is no public area at all."""
    accept()
    flipped = forge.AK ^ 1 << bit
    if bit == 10:
        assert accept(attributes=flipped).public.attributes == 0x00050472
        return
    reserved = bit in (0, 3, 8, 9, 12, 13, 14, 15) or bit >= 20
    expected = "reserved_attributes" if reserved else "ak_attributes"
    assert reason_of(lambda: accept(attributes=flipped)) == expected
    if not reserved:
        assert reason_of(lambda: accept(attributes=flipped | 1 << 10)) == "ak_attributes"


@pytest.mark.parametrize(
    "attributes", [forge.CREDENTIAL, forge.STORAGE, forge.EK_LOW, forge.EK_HIGH, 0, 0x00060040]
)
def test_ac_4_keys_for_other_purposes_are_refused(attributes: int) -> None:
    assert reason_of(lambda: accept(attributes=attributes)) == "ak_attributes"


SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "a policy": ({"policy": bytes(32)}, "ak_attributes"),
    "a Name of SHA-1": ({"name_alg": "sha1"}, "ak_attributes"),
    "a Name of SHA-512": ({"name_alg": "sha512"}, "ak_attributes"),
    "a cipher": ({"symmetric": forge.AES128CFB}, "ak_attributes"),
    "no scheme": ({"scheme": forge.NULL}, "ak_scheme"),
    "a scheme of SHA-1": ({"scheme": forge.signing_scheme("ecdsa", "sha1")}, "ak_scheme"),
    "a scheme of SHA-512": ({"scheme": forge.signing_scheme("ecdsa", "sha512")}, "ak_scheme"),
    "key agreement": ({"scheme": bytes.fromhex("0019000b")}, "ak_scheme"),
    "anonymous signing": ({"scheme": bytes.fromhex("001a000b0000")}, "unknown_scheme"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ac_4_nothing_else_may_govern_the_key(shape: str) -> None:
    accept()
    changes, reason = SHAPES[shape]
    assert reason_of(lambda: accept(**changes)) == reason


def test_ac_4_an_rsa_key_for_encryption_is_refused() -> None:
    for scheme in ("0017000b", "0015"):
        assert reason_of(lambda s=scheme: accept("rsa2048", scheme=bytes.fromhex(s))) == "ak_scheme"


def test_ac_4_a_derivation_function_is_refused() -> None:
    raw = forge.public_area(forge.private_key("p256"), scheme=ECDSA)
    plain = ECDSA + struct.pack(">H", 3)
    assert raw.count(plain + forge.NULL) == 1
    derived = raw.replace(plain + forge.NULL, plain + bytes.fromhex("0020000b"))
    assert reason_of(lambda: accept_attestation_key(parse_public(derived))) == "ak_attributes"


@pytest.mark.parametrize(("kind", "raw"), [("keyedhash", "0005000b"), ("symcipher", "")])
def test_ac_4_objects_without_a_public_key_are_refused(kind: str, raw: str) -> None:
    """An HMAC key may have the attributes of an attestation key and still prove nothing to anyone else."""
    number, parameters = {"keyedhash": (8, bytes.fromhex(raw)), "symcipher": (0x25, forge.AES128CFB)}[kind]
    area = struct.pack(">HHIH", number, 0x000B, forge.AK, 0) + parameters + forge.sized(bytes(32))
    assert reason_of(lambda: accept_attestation_key(parse_public(area))) in ("ak_scheme", "ak_attributes")


def rsa_area(modulus: bytes, *, bits: int = 2048, exponent: int = 0) -> bytes:
    head = struct.pack(">HHIH", 0x0001, 0x000B, forge.AK, 0) + forge.NULL + RSASSA
    return head + struct.pack(">HI", bits, exponent) + forge.sized(modulus)


def modulus_of(kind: str = "rsa2048") -> bytes:
    key = forge.private_key(kind)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key().public_numbers().n.to_bytes(key.key_size // 8, "big")


FULL = modulus_of()
MODULI: dict[str, tuple[dict[str, Any], str]] = {
    "shorter than claimed": ({"modulus": FULL[1:]}, "ak_attributes"),
    "one bit short": ({"modulus": bytes([FULL[0] & 0x7F]) + FULL[1:]}, "ak_attributes"),
    "half as long as claimed": ({"modulus": FULL[:128]}, "ak_attributes"),
    "longer than claimed": ({"modulus": b"\1" + FULL}, "ak_attributes"),
    "empty": ({"modulus": b""}, "ak_attributes"),
    "even": ({"modulus": FULL[:-1] + bytes([FULL[-1] & 0xFE])}, "weak_key"),
    "1024 bits": ({"modulus": FULL[:127] + b"\1", "bits": 1024}, "weak_key"),
    "2047 bits": ({"modulus": bytes([0x7F]) + FULL[1:], "bits": 2047}, "weak_key"),
    "2056 bits": ({"modulus": b"\xff" + FULL, "bits": 2056}, "weak_key"),
    "exponent 1": ({"modulus": FULL, "exponent": 1}, "weak_key"),
    "exponent 3": ({"modulus": FULL, "exponent": 3}, "weak_key"),
    "exponent 65539": ({"modulus": FULL, "exponent": 65539}, "weak_key"),
}


@pytest.mark.parametrize("modulus", MODULI)
def test_ac_4_a_modulus_is_as_long_as_it_claims_and_strong(modulus: str) -> None:
    accept_attestation_key(parse_public(rsa_area(FULL)))
    accept_attestation_key(parse_public(rsa_area(FULL, exponent=65537)))
    changes, reason = MODULI[modulus]
    assert reason_of(lambda: accept_attestation_key(parse_public(rsa_area(**changes)))) == reason


def test_a_leading_zero_changes_the_name_and_not_the_key() -> None:
    plain, padded = (accept_attestation_key(parse_public(rsa_area(n))) for n in (FULL, b"\0" + FULL))
    assert plain.key == padded.key
    assert plain.name != padded.name


def test_qt_9_a_point_off_its_curve_is_no_key() -> None:
    raw = forge.public_area(forge.private_key("p256"), scheme=ECDSA)
    accept_attestation_key(parse_public(raw))
    assert (
        reason_of(lambda: accept_attestation_key(parse_public(raw[:-1] + bytes([raw[-1] ^ 1])))) == "bad_key"
    )


def test_a_bare_key_is_judged_like_every_other() -> None:
    for kind, scheme in (("rsa2048", "rsassa"), ("rsa3072", "rsapss"), ("p256", "ecdsa"), ("p521", "ecdsa")):
        key = forge.private_key(kind).public_key()
        ak = bare_attestation_key(key, scheme, SHA384)
        assert (ak.key, ak.scheme, ak.hash) == (key, scheme, SHA384)
    plain = bare_attestation_key(forge.private_key("p256").public_key(), "ecdsa", SHA256)
    assert plain.public.raw == forge.public_area(forge.private_key("p256"), scheme=ECDSA)


BARE: dict[str, tuple[Callable[[], Any], str, Hash, str]] = {
    "SHA-1": (lambda: forge.private_key("p256").public_key(), "ecdsa", SHA1, "ak_scheme"),
    "SHA-512": (lambda: forge.private_key("p256").public_key(), "ecdsa", SHA512, "ak_scheme"),
    "RSA scheme of an EC key": (
        lambda: forge.private_key("p256").public_key(),
        "rsassa",
        SHA256,
        "ak_scheme",
    ),
    "EC scheme of an RSA key": (
        lambda: forge.private_key("rsa2048").public_key(),
        "ecdsa",
        SHA256,
        "ak_scheme",
    ),
    "no such scheme": (lambda: forge.private_key("rsa2048").public_key(), "oaep", SHA256, "ak_scheme"),
    "RSA-1024": (lambda: rsa.generate_private_key(65537, 1024).public_key(), "rsassa", SHA256, "weak_key"),
    "exponent 3": (lambda: rsa.generate_private_key(3, 2048).public_key(), "rsassa", SHA256, "weak_key"),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()).public_key(), "ecdsa", SHA256, "weak_key"),
    "P-224": (lambda: ec.generate_private_key(ec.SECP224R1()).public_key(), "ecdsa", SHA256, "weak_key"),
}


@pytest.mark.parametrize("which", BARE)
def test_qt_8_a_bare_key_that_is_too_weak_is_refused(which: str) -> None:
    make, scheme, hash, reason = BARE[which]
    assert reason_of(lambda: bare_attestation_key(make(), scheme, hash)) == reason


def test_a_key_signs_as_a_primary_or_below_the_endorsement_key() -> None:
    ak = accept()
    ek = parse_public(
        forge.public_area(forge.private_key("p256", 1), attributes=forge.EK_LOW, symmetric=forge.AES128CFB)
    )

    def qualify(parent: bytes, name: bytes) -> bytes:
        return name[:2] + SHA256.digest(parent + name)

    primary = qualify(forge.ENDORSEMENT, ak.name)
    child = qualify(qualify(forge.ENDORSEMENT, ek.name), ak.name)
    assert expected_signers(ak, ek) == {primary, child}
    for hierarchy in ("40000001", "40000007", "4000000c"):
        assert qualify(bytes.fromhex(hierarchy), ak.name) not in expected_signers(ak, ek)


def test_a_child_of_an_endorsement_key_of_longer_hash_is_qualified_by_its_own() -> None:
    ak = accept()
    ek = parse_public(
        forge.public_area(
            forge.private_key("p384"), attributes=forge.EK_HIGH, symmetric=forge.AES256CFB, name_alg="sha384"
        )
    )
    above = b"\x00\x0c" + SHA384.digest(forge.ENDORSEMENT + ek.name)
    assert b"\x00\x0b" + SHA256.digest(above + ak.name) in expected_signers(ak, ek)


def test_refusals_say_what_was_expected_and_found() -> None:
    with pytest.raises(EvidenceError, match=r"restricted\|sign.*this one is fixedTPM.*decrypt"):
        accept(attributes=forge.AK | 1 << 17)
