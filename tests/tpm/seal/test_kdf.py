"""Do both sides derive the same keys?"""

import json
from pathlib import Path

import pytest
from tpm2_pytss.internal import crypto

from tpm.seal.kdf import kdfa, kdfe
from tpm.structures.algorithms import SHA256, SHA384, SHA512, Hash, hash_by_id

_VECTORS = Path(__file__).parents[2] / "vectors/credential_activation/gotpm-kdfa"
_K = bytes(range(32))
# Nothing but a Name: of the attestation key that the vectors were made with.
_NAME = bytes.fromhex("000bf364d14e56a49197c23a576fff86950787685ff0558c4c56330afdc48d32abe3")


def test_every_vector_of_go_tpm_is_derived_with_its_odd_length() -> None:
    vectors = json.loads((_VECTORS / "vectors.json").read_text())
    assert len(vectors) == json.loads((_VECTORS / "expected.json").read_text())["expected"]["count"]
    for vector in vectors:
        key, u, v = (bytes.fromhex(vector[name]) for name in ("Key", "ContextU", "ContextV"))
        hash = hash_by_id(vector["HashAlg"])
        derived = kdfa(hash, key, vector["Label"].encode(), u, v, vector["Bits"])
        assert derived.hex() == vector["Result"], vector["Name"]


def test_storage_and_integrity_keys_of_a_credential_are_those_that_a_tpm_derives() -> None:
    assert kdfa(SHA256, _K, b"STORAGE", _NAME, b"", 128).hex() == "70dbbab376d532c9b334de3b750dd251"
    integrity = kdfa(SHA256, _K, b"INTEGRITY", b"", b"", 256)
    assert integrity.hex() == "bacf689f634ece301e1f1b15b072d9c87db6a69585db42b1a0cb8f73ebe2692e"


def test_seed_from_a_shared_point_is_the_one_that_a_tpm_derives() -> None:
    seed = kdfe(SHA256, _K, b"IDENTITY", b"\x11" * 32, b"\x22" * 32, 256)
    assert seed.hex() == "cbce7a80e1b35da754dc24ec97f8c9ef9281bf9944c930765256ae6ea7d59f0e"


@pytest.mark.parametrize("hash", [SHA256, SHA384, SHA512], ids=lambda hash: hash.name)
@pytest.mark.parametrize("bits", [128, 256, 384, 512, 1032, 2048])
def test_both_derivations_agree_with_tpm2_pytss_over_several_blocks(hash: Hash, bits: int) -> None:
    assert kdfa(hash, _K, b"CFB", b"u", b"v", bits) == crypto._kdfa(hash.id, _K, b"CFB", b"u", b"v", bits)
    expected = crypto.kdfe(hash.id, _K, b"DUPLICATE\0", b"u" * 48, b"v" * 48, bits)
    assert kdfe(hash, _K, b"DUPLICATE", b"u" * 48, b"v" * 48, bits) == expected


def test_surplus_bits_of_an_odd_length_are_the_high_ones_of_the_first_byte() -> None:
    for bits in range(1, 9):
        whole, cut = kdfe(SHA256, _K, b"L", b"", b"", 8), kdfe(SHA256, _K, b"L", b"", b"", bits)
        assert cut == bytes([whole[0] % 2**bits])
