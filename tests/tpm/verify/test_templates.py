"""Which public areas are endorsement keys as the TCG defines them?"""

import hashlib
import struct
from typing import Any

import pytest

from tests.tpm import forge
from tpm.errors import EvidenceError
from tpm.structures.public import parse_public
from tpm.verify.templates import match_ek_template

NV_INDEX = {"sha256": 0x01C07F01, "sha384": 0x01C07F02, "sha512": 0x01C07F03}


def policy_a(hash: str) -> bytes:
    """PolicySecret(TPM_RH_ENDORSEMENT) from a fresh session."""
    size = hashlib.new(hash).digest_size
    first = hashlib.new(hash, bytes(size) + struct.pack(">I", 0x151) + forge.ENDORSEMENT).digest()
    return hashlib.new(hash, first).digest()


def policy_b(hash: str) -> bytes:
    """PolicyOR(policy A, PolicyAuthorizeNV of the index that the profile reserves for it)."""
    size, a = hashlib.new(hash).digest_size, policy_a(hash)
    area = struct.pack(">IHI", NV_INDEX[hash], forge.ALG[hash], 0x220F1008) + forge.sized(a)
    name = struct.pack(">H", forge.ALG[hash]) + hashlib.new(hash, area + struct.pack(">H", size + 2)).digest()
    c = hashlib.new(hash, bytes(size) + struct.pack(">I", 0x192) + name).digest()
    return hashlib.new(hash, bytes(size) + struct.pack(">I", 0x171) + a + c).digest()


def low(kind: str) -> tuple[str, dict[str, Any]]:
    return kind, {"attributes": forge.EK_LOW, "policy": policy_a("sha256"), "symmetric": forge.AES128CFB}


def high(kind: str, hash: str, symmetric: bytes) -> tuple[str, dict[str, Any]]:
    shape = {"attributes": forge.EK_HIGH, "policy": policy_b(hash), "symmetric": symmetric, "name_alg": hash}
    return kind, shape


TEMPLATES = {
    "L-1": low("rsa2048"),
    "L-2": low("p256"),
    "H-1": high("rsa2048", "sha256", forge.AES128CFB),
    "H-2": high("p256", "sha256", forge.AES128CFB),
    "H-3": high("p384", "sha384", forge.AES256CFB),
    "H-4": high("p521", "sha512", forge.AES256CFB),
    "H-6": high("rsa3072", "sha384", forge.AES256CFB),
    "H-7": high("rsa4096", "sha384", forge.AES256CFB),
}


def match(kind: str, shape: dict[str, Any]) -> str:
    return match_ek_template(parse_public(forge.public_area(forge.private_key(kind), **shape)))


def reason_of(kind: str, shape: dict[str, Any]) -> str:
    with pytest.raises(EvidenceError) as refusal:
        match(kind, shape)
    return refusal.value.reason


@pytest.mark.parametrize("name", TEMPLATES)
def test_ac_5_every_template_is_known_by_its_name(name: str) -> None:
    assert match(*TEMPLATES[name]) == name


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("bit", [1, 2, 4, 5, 6, 7, 10, 11, 16, 17, 18, 19])
def test_ac_5_an_attribute_that_differs_is_no_template(name: str, bit: int) -> None:
    kind, shape = TEMPLATES[name]
    assert reason_of(kind, shape | {"attributes": shape["attributes"] ^ 1 << bit}) == "ek_template"


@pytest.mark.parametrize("name", TEMPLATES)
def test_ac_5_anything_else_that_differs_is_no_template(name: str) -> None:
    kind, shape = TEMPLATES[name]
    size = len(shape["policy"])
    other_cipher = forge.AES256CFB if shape["symmetric"] == forge.AES128CFB else forge.AES128CFB
    scheme = forge.signing_scheme("rsassa" if kind.startswith("rsa") else "ecdsa")
    for change in (
        {"policy": b""},
        {"policy": bytes(size)},
        {"policy": shape["policy"][:-1] + bytes([shape["policy"][-1] ^ 1])},
        {"symmetric": other_cipher},
        {"symmetric": forge.NULL},
        {"symmetric": shape["symmetric"][:-1] + b"\x42"},
        {"scheme": scheme},
        {"name_alg": "sha1", "policy": b""},
    ):
        assert reason_of(kind, shape | change) == "ek_template"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("p384", "L-2"),
        ("p521", "L-2"),
        ("rsa3072", "L-1"),
        ("rsa3072", "H-1"),
        ("p256", "H-3"),
        ("p384", "H-4"),
        ("rsa2048", "H-6"),
        ("p256", "H-7"),
    ],
)
def test_ac_5_a_key_of_another_size_than_its_templates_is_refused(kind: str, name: str) -> None:
    assert match(*TEMPLATES[name]) == name
    assert reason_of(kind, TEMPLATES[name][1]) == "ek_template"


def test_ac_5_some_templates_differ_by_their_key_alone() -> None:
    assert match("rsa2048", TEMPLATES["L-2"][1]) == "L-1"
    assert match("rsa2048", TEMPLATES["H-2"][1]) == "H-1"
    assert match("rsa3072", TEMPLATES["H-7"][1]) == "H-6"
    assert match("p384", TEMPLATES["H-7"][1]) == "H-3"


def test_ac_5_the_policies_of_low_and_high_are_not_interchangeable() -> None:
    for kind in ("rsa2048", "p256"):
        assert reason_of(kind, TEMPLATES["L-1"][1] | {"policy": policy_b("sha256")}) == "ek_template"
        assert reason_of(kind, TEMPLATES["H-1"][1] | {"policy": policy_a("sha256")}) == "ek_template"


@pytest.mark.parametrize("purpose", ["attestation key", "storage key", "credential key"])
def test_ac_5_other_keys_of_a_tpm_are_no_endorsement_keys(purpose: str) -> None:
    shape = {
        "attestation key": {"attributes": forge.AK, "scheme": forge.signing_scheme("ecdsa")},
        "storage key": {"attributes": forge.STORAGE, "symmetric": forge.AES128CFB},
        "credential key": {"attributes": forge.CREDENTIAL, "scheme": forge.signing_scheme("ecdsa")},
    }[purpose]
    assert reason_of("p256", shape) == "ek_template"


def test_a_modulus_shorter_than_the_template_is_refused() -> None:
    kind, shape = TEMPLATES["L-1"]
    raw = forge.public_area(forge.private_key(kind), **shape)
    for changed, reason in (
        (raw[:-258] + forge.sized(raw[-128:]), "ek_template"),
        (raw[:-258] + forge.sized(b""), "ek_template"),
        (raw[:-1] + bytes([raw[-1] & 0xFE]), "weak_key"),
    ):
        with pytest.raises(EvidenceError) as refusal:
            match_ek_template(parse_public(changed))
        assert refusal.value.reason == reason


def test_policies_are_the_published_ones() -> None:
    assert policy_a("sha256").hex().startswith("837197674484b3f8")
    assert policy_b("sha256").hex().startswith("ca3d0a99a2b93906")
    assert policy_b("sha384").hex().startswith("b26e7d28d11a50bc")
    assert policy_b("sha512").hex().startswith("b8221ca69e8550a4914de3fa")


@pytest.mark.parametrize("name", ["L-2", "H-2", "H-3", "H-4"])
def test_ac_5_a_key_that_derives_others_is_no_template(name: str) -> None:
    kind, shape = TEMPLATES[name]
    plain = shape["symmetric"] + forge.NULL + struct.pack(">H", forge.CURVES[kind][0])
    raw = forge.public_area(forge.private_key(kind), **shape)
    assert raw.count(plain + forge.NULL) == 1
    derived = raw.replace(plain + forge.NULL, plain + bytes.fromhex("0020000b"))
    with pytest.raises(EvidenceError) as refusal:
        match_ek_template(parse_public(derived))
    assert refusal.value.reason == "ek_template"
