"""Do our names stand for the right numbers, and nothing else for any?"""

import hashlib

import pytest

from tests.tpm import forge
from tpm.errors import StructureError
from tpm.structures.algorithms import curve_by_id, hash_by_id, hash_by_name
from tpm.structures.attributes import KNOWN, describe_attributes


@pytest.mark.parametrize("name", ["sha1", "sha256", "sha384", "sha512"])
def test_a_hash_is_the_same_by_number_and_by_name(name: str) -> None:
    known = hash_by_name(name)
    assert known is hash_by_id(forge.ALG[name])
    assert known.digest(b"abc") == hashlib.new(name, b"abc").digest()
    assert (known.size, known.primitive.digest_size) == (hashlib.new(name).digest_size,) * 2
    assert known.primitive.name == name


def test_no_other_number_is_a_hash_or_a_curve() -> None:
    for number in range(0x10000):
        for lookup, known in ((hash_by_id, forge.ALG.values()), (curve_by_id, (3, 4, 5))):
            if number not in known:
                with pytest.raises(StructureError, match=f"{number:04x}"):
                    lookup(number)


@pytest.mark.parametrize("name", ["", "SHA256", "sha-256", "sha3-256", "md5"])
def test_no_other_word_is_a_hash(name: str) -> None:
    with pytest.raises(StructureError) as refusal:
        hash_by_name(name)
    assert refusal.value.reason == "unknown_hash"


def test_attributes_are_described_by_the_tcg_names() -> None:
    assert describe_attributes(0x00050072) == (
        "fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|restricted|sign"
    )
    assert describe_attributes(0) == "none"
    assert len(describe_attributes(KNOWN).split("|")) == KNOWN.bit_count() == 12
