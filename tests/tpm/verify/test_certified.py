"""Is a key believed to be of this TPM only where the TPM said so, and only with the right attributes?"""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.tpm import forge
from tests.tpm.machine import machine
from tpm.errors import AttestationError
from tpm.structures.public import parse_public
from tpm.verify.certified import VerifiedKey, verify_certified_key, verify_key_proof

ES256, ES384 = forge.signing_scheme("ecdsa"), forge.signing_scheme("ecdsa", "sha384")
PS256 = forge.signing_scheme("rsapss")
SIGNING = {"attributes": forge.CREDENTIAL, "scheme": ES256}
PARENT = {"attributes": forge.STORAGE, "symmetric": forge.AES128CFB}


def area(kind: str = "p256", **shape: Any) -> bytes:
    return forge.public_area(forge.private_key(kind, 1), **shape)


def verify(public: bytes, **claims: Any) -> VerifiedKey:
    """Certified by a healthy machine, except for what `claims` say."""
    sender = machine()
    demands = {"ak": sender.ak, "expected_extra_data": forge.NONCE, "expected_signers": sender.signers}
    demands |= claims.pop("demands", {})
    certification, signature = sender.certify(public, **claims)
    return verify_certified_key(certification, signature, parse_public(public), **demands)  # type: ignore[arg-type]


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationError) as refusal:
        call()
    return refusal.value.reason


KEYS = {
    "ES256": ("p256", SIGNING),
    "ES384": ("p384", {"attributes": forge.CREDENTIAL, "scheme": ES384}),
    "PS256": ("rsa2048", {"attributes": forge.CREDENTIAL, "scheme": PS256}),
}
PARENTS = {
    "P-256": ("p256", PARENT),
    "P-384": ("p384", PARENT | {"name_alg": "sha384", "symmetric": forge.AES256CFB}),
    "RSA": ("rsa2048", PARENT),
    "EK low": ("rsa2048", PARENT | {"attributes": forge.EK_LOW, "policy": bytes(32)}),
    "EK high": ("p256", PARENT | {"attributes": forge.EK_HIGH, "policy": bytes(32)}),
}


@pytest.mark.parametrize("alg", KEYS)
def test_a_signing_key_gets_the_algorithm_of_its_scheme(alg: str) -> None:
    kind, shape = KEYS[alg]
    key = verify(area(kind, **shape))
    assert (key.role, key.alg) == ("signing", alg)
    assert key.name == forge.name_of(key.public.raw)
    assert key.public.public_key() == forge.private_key(kind, 1).public_key()


@pytest.mark.parametrize("parent", PARENTS)
def test_a_storage_key_is_a_parent_and_signs_nothing(parent: str) -> None:
    kind, shape = PARENTS[parent]
    key = verify(area(kind, **shape))
    assert (key.role, key.alg) == ("parent", None)
    assert reason_of(lambda: verify_key_proof(key, bytes(64), message=b"")) == "bad_proof"


@pytest.mark.parametrize("name_alg", ["sha256", "sha384", "sha512"])
def test_names_of_good_hashes_are_accepted(name_alg: str) -> None:
    assert verify(area(**SIGNING, name_alg=name_alg)).name == forge.name_of(
        area(**SIGNING, name_alg=name_alg)
    )
    assert verify(area(**PARENT, name_alg=name_alg)).role == "parent"


@pytest.mark.parametrize("free", [0x40, 0x80, 0x400, 0x4C0])
def test_how_a_key_is_authorised_is_the_devices_business(free: int) -> None:
    assert verify(area(**SIGNING | {"attributes": 0x00040032 | free})).role == "signing"
    assert verify(area(**PARENT | {"attributes": 0x00030032 | free})).role == "parent"


STATEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "another request": ({"extra": bytes(32)}, "nonce_mismatch"),
    "no request": ({"extra": b""}, "nonce_missing"),
    "another signer": ({"signer": b"\x00\x0b" + bytes(32)}, "qualified_signer"),
    "another object": ({"name": b"\x00\x0b" + bytes(32)}, "name_mismatch"),
    "no object": ({"name": b""}, "name_mismatch"),
    "the same digest, another hash": (
        {"name": b"\x00\x0c" + forge.name_of(area(**SIGNING))[2:]},
        "name_mismatch",
    ),
    "not a TPM's": ({"magic": 0xFF544348}, "not_tpm_generated"),
    "a quote": ({"kind": 0x8018}, "wrong_type"),
    "a creation": ({"kind": 0x801A}, "wrong_type"),
}


@pytest.mark.parametrize("claim", STATEMENTS)
def test_the_statement_is_the_same_keys_for_the_same_request_and_object(claim: str) -> None:
    verify(area(**SIGNING))
    claims, reason = STATEMENTS[claim]
    assert reason_of(lambda: verify(area(**SIGNING), **claims)) == reason


def test_a_certification_by_another_attestation_key_is_refused() -> None:
    own, other = machine(), machine(which=2)
    public = area(**SIGNING)
    certification, signature = other.certify(public, signer=own.signer)
    demands = {"expected_extra_data": forge.NONCE, "expected_signers": own.signers}
    verify_certified_key(certification, signature, parse_public(public), ak=other.ak, **demands)  # type: ignore[arg-type]
    refused = reason_of(
        lambda: verify_certified_key(certification, signature, parse_public(public), ak=own.ak, **demands)  # type: ignore[arg-type]
    )
    assert refused == "bad_signature"


def test_the_public_area_beside_it_must_be_the_certified_one() -> None:
    """Same key, another attribute: the Name tells."""
    sender = machine()
    certification, signature = sender.certify(area(**SIGNING))
    swapped = parse_public(area(**SIGNING | {"attributes": forge.CREDENTIAL | 0x400}))
    demands = {"ak": sender.ak, "expected_extra_data": forge.NONCE, "expected_signers": sender.signers}
    assert (
        reason_of(lambda: verify_certified_key(certification, signature, swapped, **demands))  # type: ignore[arg-type]
        == "name_mismatch"
    )


MEANINGFUL = [1, 2, 4, 5, 6, 7, 10, 11, 16, 17, 18, 19]
FREE = {6, 7, 10}


@pytest.mark.parametrize("bit", MEANINGFUL)
def test_a_credential_key_has_exactly_these_attributes(bit: int) -> None:
    flipped = area(**SIGNING | {"attributes": forge.CREDENTIAL ^ 1 << bit})
    if bit in FREE:
        assert verify(flipped).role == "signing"
    else:
        expected = "parent_attributes" if bit == 17 else "key_attributes"
        assert reason_of(lambda: verify(flipped)) == expected


@pytest.mark.parametrize("bit", MEANINGFUL)
def test_ks_7_a_parent_has_exactly_these_attributes(bit: int) -> None:
    flipped = area(**PARENT | {"attributes": forge.STORAGE ^ 1 << bit})
    if bit in FREE:
        assert verify(flipped).role == "parent"
    else:
        expected = "key_attributes" if bit == 17 else "parent_attributes"
        assert reason_of(lambda: verify(flipped)) == expected


WRONG_PARENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no cipher": ("p256", PARENT | {"symmetric": forge.NULL}),
    "AES-192": ("p256", PARENT | {"symmetric": bytes.fromhex("000600c00043")}),
    "AES-128 in CBC": ("p256", PARENT | {"symmetric": bytes.fromhex("000600800042")}),
    "AES-128 in any mode": ("p256", PARENT | {"symmetric": bytes.fromhex("000600800010")}),
    "SM4": ("p256", PARENT | {"symmetric": bytes.fromhex("001300800043")}),
    "Camellia": ("rsa2048", PARENT | {"symmetric": bytes.fromhex("002600800043")}),
    "a Name of SHA-1": ("p256", PARENT | {"name_alg": "sha1"}),
    "a scheme": ("p256", PARENT | {"scheme": bytes.fromhex("0019000b")}),
    "an RSA scheme": ("rsa2048", PARENT | {"scheme": bytes.fromhex("0017000b")}),
    "unrestricted": ("rsa2048", PARENT | {"attributes": 0x00020472}),
    "a signing decryption key": ("rsa2048", PARENT | {"attributes": 0x00060472}),
    "a legacy key that can be duplicated": ("rsa2048", PARENT | {"attributes": 0x00030460}),
}


@pytest.mark.parametrize("wrong", WRONG_PARENTS)
def test_ks_7_a_parent_of_another_shape_is_refused(wrong: str) -> None:
    verify(area(**PARENT))
    kind, shape = WRONG_PARENTS[wrong]
    assert reason_of(lambda: verify(area(kind, **shape))) == "parent_attributes"


def symmetric_parent(kind: str) -> bytes:
    number, parameters = {"keyedhash": (0x0008, forge.NULL), "symcipher": (0x0025, forge.AES128CFB)}[kind]
    return struct.pack(">HHIH", number, 0x000B, forge.STORAGE, 0) + parameters + forge.sized(bytes(32))


@pytest.mark.parametrize("kind", ["keyedhash", "symcipher"])
def test_ks_7_a_parent_to_which_nothing_can_be_encrypted_is_refused(kind: str) -> None:
    """TPMs have derivation parents and symmetric parents; nobody outside can wrap a key to them."""
    assert reason_of(lambda: verify(symmetric_parent(kind))) == "parent_attributes"


def with_derivation(public: bytes, before: bytes) -> bytes:
    plain = before + struct.pack(">H", 3)
    assert public.count(plain + forge.NULL) == 1
    return public.replace(plain + forge.NULL, plain + bytes.fromhex("0020000b"))


def test_a_derivation_function_is_refused_in_both_roles() -> None:
    parent = with_derivation(area(**PARENT), forge.AES128CFB + forge.NULL)
    signing = with_derivation(area(**SIGNING), ES256)
    assert reason_of(lambda: verify(parent)) == "parent_attributes"
    assert reason_of(lambda: verify(signing)) == "key_attributes"


WRONG_KEYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a Name of SHA-1": ("p256", SIGNING | {"name_alg": "sha1"}, "key_attributes"),
    "a cipher": ("p256", SIGNING | {"symmetric": forge.AES128CFB}, "key_attributes"),
    "an attestation key": ("p256", SIGNING | {"attributes": forge.AK}, "key_attributes"),
    "an imported key": ("p256", SIGNING | {"attributes": 0x00040052}, "key_attributes"),
    "a key of any parent": ("p256", SIGNING | {"attributes": 0x00040062}, "key_attributes"),
    "no scheme": ("p256", SIGNING | {"scheme": forge.NULL}, "key_scheme"),
    "RSASSA": (
        "rsa2048",
        SIGNING | {"scheme": forge.signing_scheme("rsassa")},
        "key_scheme",
    ),
    "RSAPSS with SHA-384": (
        "rsa2048",
        SIGNING | {"scheme": forge.signing_scheme("rsapss", "sha384")},
        "key_scheme",
    ),
    "RSAES": ("rsa2048", SIGNING | {"scheme": bytes.fromhex("0015")}, "key_scheme"),
    "P-256 with SHA-384": ("p256", SIGNING | {"scheme": ES384}, "key_scheme"),
    "P-384 with SHA-256": ("p384", SIGNING, "key_scheme"),
    "P-521": ("p521", SIGNING | {"scheme": forge.signing_scheme("ecdsa", "sha512")}, "key_scheme"),
    "SHA-1": ("p256", SIGNING | {"scheme": forge.signing_scheme("ecdsa", "sha1")}, "key_scheme"),
}


@pytest.mark.parametrize("wrong", WRONG_KEYS)
def test_a_credential_key_of_another_shape_is_refused(wrong: str) -> None:
    verify(area(**SIGNING))
    kind, shape, reason = WRONG_KEYS[wrong]
    assert reason_of(lambda: verify(area(kind, **shape))) == reason


@pytest.mark.parametrize("role", ["signing", "parent"])
def test_weak_and_impossible_keys_are_refused_even_if_certified(role: str) -> None:
    shape = PARENT if role == "parent" else {"attributes": forge.CREDENTIAL, "scheme": PS256}
    small = forge.public_area(rsa.generate_private_key(65537, 1024), **shape)  # type: ignore[arg-type]
    three = forge.public_area(rsa.generate_private_key(3, 2048), **shape)  # type: ignore[arg-type]
    assert reason_of(lambda: verify(small)) == reason_of(lambda: verify(three)) == "weak_key"
    full = area("rsa2048", **shape)
    short = full[:-258] + forge.sized(full[-255:])
    assert reason_of(lambda: verify(short)) == f"{'key' if role == 'signing' else 'parent'}_attributes"
    curve = area("p256", **(PARENT if role == "parent" else SIGNING))
    assert reason_of(lambda: verify(curve[:-1] + bytes([curve[-1] ^ 1]))) == "bad_key"


def test_an_hmac_key_is_no_credential_key() -> None:
    head = struct.pack(">HHIH", 0x0008, 0x000B, forge.CREDENTIAL, 0)
    hmac = head + bytes.fromhex("0005000b") + forge.sized(bytes(32))
    assert reason_of(lambda: verify(hmac)) == "key_scheme"


def proof_of(kind: str, message: bytes) -> bytes:
    key = forge.private_key(kind, 1)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, forge.rsa_padding("rsapss"), forge.HASHES["sha256"])
    hash, size = {"p256": ("sha256", 32), "p384": ("sha384", 48)}[kind]
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(forge.HASHES[hash])))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@pytest.mark.parametrize("alg", KEYS)
def test_a_proof_is_the_jws_signature_of_the_certified_key(alg: str) -> None:
    kind, shape = KEYS[alg]
    key, message = verify(area(kind, **shape)), b'{"v":1}'
    proof = proof_of(kind, message)
    verify_key_proof(key, proof, message=message)
    for wrong in (b"", proof[:-1], proof + b"\0", b"\0" + proof, bytes(len(proof)), proof[::-1]):
        assert reason_of(lambda p=wrong: verify_key_proof(key, p, message=message)) == "bad_proof"
    assert reason_of(lambda: verify_key_proof(key, proof, message=message + b" ")) == "bad_proof"
    for bit in range(8 * len(proof)):
        flipped = bytearray(proof)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason_of(lambda p=bytes(flipped): verify_key_proof(key, p, message=message)) == "bad_proof"


def test_a_proof_by_another_key_or_of_another_form_is_refused() -> None:
    message = b"request"
    key, pss = verify(area(**SIGNING)), verify(area("rsa2048", **KEYS["PS256"][1]))
    stranger = forge.private_key("p256", 2)
    assert isinstance(stranger, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(stranger.sign(message, ec.ECDSA(forge.HASHES["sha256"])))
    foreign = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    signer, rsa_signer = forge.private_key("p256", 1), forge.private_key("rsa2048", 1)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    assert isinstance(rsa_signer, rsa.RSAPrivateKey)
    der = signer.sign(message, ec.ECDSA(forge.HASHES["sha256"]))
    pkcs1 = rsa_signer.sign(message, padding.PKCS1v15(), forge.HASHES["sha256"])
    salted = padding.PSS(padding.MGF1(forge.HASHES["sha256"]), padding.PSS.MAX_LENGTH)
    long_salt = rsa_signer.sign(message, salted, forge.HASHES["sha256"])
    for which, proof in ((key, foreign), (key, der), (pss, pkcs1), (pss, long_salt), (pss, foreign)):
        assert reason_of(lambda k=which, p=proof: verify_key_proof(k, p, message=message)) == "bad_proof"


def test_a_proof_has_its_full_width_even_where_a_zero_could_be_left_out() -> None:
    key, signer = verify(area(**SIGNING)), forge.private_key("p256", 1)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    s = 1 << 255
    while s >= 1 << 248:
        r, s = decode_dss_signature(signer.sign(b"request", ec.ECDSA(forge.HASHES["sha256"])))
    full = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    verify_key_proof(key, full, message=b"request")
    stripped = r.to_bytes(32, "big") + s.to_bytes(31, "big")
    padded = r.to_bytes(32, "big") + s.to_bytes(33, "big")
    for wrong in (stripped, padded):
        assert reason_of(lambda p=wrong: verify_key_proof(key, p, message=b"request")) == "bad_proof"
