"""Are register values believed only where a signed digest covers exactly them?"""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from tests.tpm import forge
from tests.tpm.machine import Machine, machine, values_of
from tpm.errors import EvidenceError
from tpm.structures.algorithms import SHA256, SHA384, Hash, hash_by_name
from tpm.verify.pcrs import VerifiedPcrs, verify_pcrs
from tpm.verify.quote import VerifiedQuote, verify_quote

Values = dict[str, dict[int, bytes]]


def verified(sender: Machine, banks: Any, values: Values, **claims: Any) -> VerifiedQuote:
    quote, signature = sender.quote(banks, values, **claims)
    return verify_quote(
        quote, signature, ak=sender.ak, expected_extra_data=forge.NONCE, expected_signers=sender.signers
    )


def reason_of(quote: VerifiedQuote, values: Values, hash: Hash = SHA256) -> str:
    with pytest.raises(EvidenceError) as refusal:
        verify_pcrs(quote, values, hash=hash)
    return refusal.value.reason


@pytest.mark.parametrize("bank", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("hash", ["sha256", "sha384"])
def test_the_digest_is_of_the_schemes_hash_and_the_values_of_the_banks(bank: str, hash: str) -> None:
    values = values_of(bank, (0, 4, 7))
    quote = verified(machine("p384", "ecdsa", hash), ((bank, (0, 4, 7)),), values)
    assert verify_pcrs(quote, values, hash=hash_by_name(hash)) == VerifiedPcrs(bank, values[bank])
    other = SHA384 if hash == "sha256" else SHA256
    assert reason_of(quote, values, other) == "pcr_mismatch"


@pytest.mark.parametrize("pcrs", [(0,), (23,), tuple(range(8)), tuple(range(9)), tuple(range(24))], ids=len)
def test_pc_9_one_eight_nine_and_all_registers_hold(pcrs: tuple[int, ...]) -> None:
    values = values_of("sha256", pcrs)
    quote = verified(machine(), (("sha256", pcrs),), values)
    held = verify_pcrs(quote, {"sha256": dict(reversed(values["sha256"].items()))}, hash=SHA256)
    assert tuple(held.values) == pcrs
    assert held.values == values["sha256"]


def test_verified_values_cannot_be_changed_afterwards() -> None:
    values = values_of("sha256", (7,))
    held = verify_pcrs(verified(machine(), (("sha256", (7,)),), values), values, hash=SHA256)
    values["sha256"][7] = bytes(32)
    assert held.values[7] == b"\x08" * 32
    with pytest.raises(TypeError):
        held.values[7] = bytes(32)  # type: ignore[index]


NOTHING = {
    "no bank": (),
    "an empty bitmap": (("sha256", ()),),
    "two empty bitmaps": (("sha256", ()), ("sha384", ())),
    "an empty SHA-1 bitmap": (("sha1", ()),),
}


@pytest.mark.parametrize("selected", NOTHING)
def test_pc_3_a_quote_of_nothing_is_refused(selected: str) -> None:
    banks = NOTHING[selected]
    quote = verified(machine(), banks, {})
    assert quote.quote.pcr_digest == hashlib.sha256(b"").digest()
    for values in ({}, {"sha256": {}}, {bank: {} for bank, _ in banks}, values_of("sha256", (0,))):
        assert reason_of(quote, values) == "selection_empty"


def test_pc_5_the_sha_1_bank_is_refused_alone_and_beside_another() -> None:
    values = values_of("sha1", (0, 7)) | values_of("sha256", (0, 7))
    sha256 = verified(machine(), (("sha256", (0, 7)),), values)
    assert verify_pcrs(sha256, {"sha256": values["sha256"]}, hash=SHA256).bank == "sha256"
    for banks in (
        (("sha1", (0, 7)),),
        (("sha256", (0, 7)), ("sha1", (0, 7))),
        (("sha1", (0, 7)), ("sha256", (0, 7))),
        (("sha256", (0, 7)), ("sha1", ())),
    ):
        quote = verified(machine(), banks, values)
        assert reason_of(quote, values) == "bank_not_allowed"
        assert reason_of(quote, {"sha256": values["sha256"]}) == "bank_not_allowed"


def test_several_banks_and_a_bank_twice_are_refused() -> None:
    values = values_of("sha256", (0, 7)) | values_of("sha384", (0, 7))
    several = verified(machine(), (("sha256", (0, 7)), ("sha384", (0, 7))), values)
    half_empty = verified(machine(), (("sha256", (0, 7)), ("sha384", ())), values)
    twice = verified(machine(), (("sha256", (0,)), ("sha256", (7,))), values)
    assert reason_of(several, values) == "banks_several"
    assert reason_of(half_empty, values) == "banks_several"
    assert reason_of(twice, {"sha256": values["sha256"]}) == "bank_repeated"


REPORTS: dict[str, Any] = {
    "nothing": lambda v: {},
    "an empty bank": lambda v: {"sha256": {}},
    "one missing at the end": lambda v: {"sha256": {0: v[0], 4: v[4]}},
    "one missing at the start": lambda v: {"sha256": {4: v[4], 7: v[7]}},
    "one too many": lambda v: {"sha256": v | {16: v[7]}},
    "the right number, another register": lambda v: {"sha256": {0: v[0], 4: v[4], 8: v[7]}},
    "two swapped": lambda v: {"sha256": v | {0: v[4], 4: v[0]}},
    "one changed": lambda v: {"sha256": v | {7: bytes(32)}},
    "one a byte short, its neighbour a byte long": lambda v: {
        "sha256": v | {0: v[0] + v[4][:1], 4: v[4][1:]}
    },
    "one empty, its neighbour double": lambda v: {"sha256": v | {0: v[0] + v[4], 4: b""}},
    "one of another bank's length": lambda v: {"sha256": v | {7: v[7] + bytes(16)}},
    "another bank": lambda v: {"sha384": v},
    "another bank beside it": lambda v: {"sha256": v, "sha1": {0: bytes(20)}},
    "an empty bank beside it": lambda v: {"sha256": v, "sha1": {}},
    "the bank in capitals": lambda v: {"SHA256": v},
    "a register below zero": lambda v: {"sha256": v | {-1: v[7]}},
    "a register that does not exist": lambda v: {"sha256": v | {24: v[7]}},
}


@pytest.mark.parametrize("report", REPORTS)
def test_pc_9_values_are_exactly_the_signed_registers(report: str) -> None:
    values = values_of("sha256", (0, 4, 7))
    quote = verified(machine(), (("sha256", (0, 4, 7)),), values)
    assert verify_pcrs(quote, values, hash=SHA256).values == values["sha256"]
    assert reason_of(quote, REPORTS[report](dict(values["sha256"]))) == "pcr_mismatch"


def test_a_signed_digest_over_other_values_is_refused() -> None:
    values = values_of("sha256", (0, 7))
    for digest in (b"", bytes(32), bytes(20), forge.digest_of(values, (("sha256", (0,)),))):
        quote = verified(machine(), (("sha256", (0, 7)),), values, digest=digest)
        assert reason_of(quote, values) == "pcr_mismatch"


def test_every_bit_of_every_value_counts() -> None:
    values = values_of("sha256", (0, 7))
    quote = verified(machine(), (("sha256", (0, 7)),), values)
    for pcr in (0, 7):
        for bit in range(256):
            changed = bytearray(values["sha256"][pcr])
            changed[bit // 8] ^= 1 << bit % 8
            assert reason_of(quote, {"sha256": values["sha256"] | {pcr: bytes(changed)}}) == "pcr_mismatch"


def test_the_selection_is_read_from_the_signed_bytes() -> None:
    """A report cannot widen what was quoted, nor a caller's own copy of the selection."""
    values = values_of("sha256", (0, 7))
    quote = verified(machine(), (("sha256", (7,)),), values)
    assert reason_of(quote, values) == "pcr_mismatch"
    assert tuple(verify_pcrs(quote, {"sha256": {7: values["sha256"][7]}}, hash=SHA256).values) == (7,)
    assert replace(quote).quote.selection.banks == (("sha256", (7,)),)
