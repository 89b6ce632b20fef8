"""Does every parser answer any bytes with a value that keeps them or with an error of ours?"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.tpm import forge
from tpm.errors import AttestationError, StructureError
from tpm.structures.attest import parse_certification, parse_quote
from tpm.structures.pcrs import PcrSelection
from tpm.structures.public import PublicArea, parse_public, parse_sized_public
from tpm.structures.reader import Reader
from tpm.structures.signature import parse_signature


def parse_selection(raw: bytes) -> PcrSelection:
    reader = Reader(raw, "selection")
    selection = PcrSelection.read(reader)
    reader.end()
    return selection


SELECTION = forge.selection(("sha256", [0, 7]), ("sha384", [23]))
SIGNER = b"\x00\x0b" + bytes(32)
ECC = forge.public_area(forge.private_key("p256"), scheme=forge.signing_scheme("ecdsa"), policy=bytes(32))
RSA = forge.public_area(forge.private_key("rsa2048"), attributes=forge.STORAGE, symmetric=forge.AES128CFB)
SEEDS: dict[str, tuple[Callable[[bytes], Any], list[bytes]]] = {
    "quote": (
        parse_quote,
        [forge.quote(SELECTION, bytes(32), signer=SIGNER), forge.quote(bytes(4), b"", extra=b"")],
    ),
    "certification": (parse_certification, [forge.certification(SIGNER, SIGNER, signer=SIGNER)]),
    "selection": (parse_selection, [SELECTION, bytes(4)]),
    "signature": (
        parse_signature,
        [
            forge.ecdsa_signature(1, 2),
            bytes.fromhex("0014000b0100") + bytes(256),
            bytes.fromhex("0016000c0000"),
        ],
    ),
    "public": (parse_public, [ECC, RSA, bytes.fromhex("0008000b000000000000001000020102")]),
    "sized public": (parse_sized_public, [forge.sized(ECC), forge.sized(RSA)]),
}


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Something near what a TPM writes: a few bytes replaced, put in or left out; a new end."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        raw = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, len(raw)))
            gone = draw(st.integers(0, 4))
            raw[start : start + gone] = draw(st.binary(max_size=4))
        return bytes(raw[: draw(st.integers(0, len(raw)))]) if draw(st.booleans()) else bytes(raw)

    return build()


def whole_value_or_our_error(parse: Callable[[bytes], Any], raw: bytes) -> None:
    """Any exception that is not ours goes through and fails the test."""
    refusal = None
    try:
        value = parse(raw)
    except AttestationError as error:
        refusal = error
    if refusal is not None:
        assert refusal.reason.isidentifier()
        assert refusal.detail
        return
    kept = value.sized if parse is parse_sized_public else value.raw
    assert kept == raw
    assert parse(kept) == value
    if parse in (parse_public, parse_sized_public):
        assert len(value.name) == 2 + value.name_alg.size
        assert key_or_refusal(value) is not None


def key_or_refusal(public: PublicArea) -> object:
    try:
        return public.public_key()
    except StructureError as error:
        return error.reason if error.reason == "bad_key" else None


@pytest.mark.parametrize("kind", SEEDS)
def test_what_the_seeds_say_is_readable(kind: str) -> None:
    parse, seeds = SEEDS[kind]
    for seed in seeds:
        whole_value_or_our_error(parse, seed)
        parse(seed)


@pytest.mark.parametrize("kind", SEEDS)
def test_any_bytes_give_a_value_that_keeps_them_or_an_error_of_ours(kind: str) -> None:
    parse, seeds = SEEDS[kind]

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @example(raw=b"")
    @example(raw=b"\xff" * 600)
    @example(raw=bytes(600))
    @given(raw=st.one_of(st.binary(max_size=700), mutated(seeds)))
    def check(raw: bytes) -> None:
        whole_value_or_our_error(parse, raw)

    check()


@pytest.mark.parametrize("kind", SEEDS)
def test_any_single_bit_may_flip_without_a_foreign_exception(kind: str) -> None:
    parse, seeds = SEEDS[kind]
    for seed in seeds:
        for bit in range(8 * len(seed)):
            flipped = bytearray(seed)
            flipped[bit // 8] ^= 1 << bit % 8
            whole_value_or_our_error(parse, bytes(flipped))
