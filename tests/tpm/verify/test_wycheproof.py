"""Does signature verification withstand Project Wycheproof?

Its ECDSA signatures are DER, TPMs' are two numbers. A signature whose encoding is not strict DER of two
positive numbers cannot be expressed as TPMT_SIGNATURE: it counts as refused at decoding. `attestd` refuses
such DER for the same reason.
"""

import json
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.tpm import forge
from tests.tpm.vectors import VECTORS
from tpm.errors import AttestationError, EvidenceError
from tpm.structures.algorithms import SHA256
from tpm.structures.signature import parse_signature
from tpm.verify.signature import verify_jws_value, verify_signature

Case = tuple[bytes, dict[str, Any]]


def cases(name: str) -> list[Case]:
    """Each test with its group's key."""
    groups = json.loads((VECTORS / "adversarial" / name / "vectors.json").read_text())["testGroups"]
    return [(bytes.fromhex(group["publicKeyDer"]), test) for group in groups for test in group["tests"]]


def number_of(case: Case) -> str:
    return f"tc{case[1]['tcId']}"


RSA = cases("wycheproof-rsa-signature-2048-sha256")
ECDSA = cases("wycheproof-ecdsa-secp256r1-sha256")


class NotDerError(Exception):
    """Not the one DER encoding of two positive numbers."""


def strict_der(encoded: bytes) -> tuple[bytes, bytes]:
    body = element(encoded, 0x30)
    size = 2 + body[1] if len(body) > 1 else 0
    return positive(element(body[:size], 0x02)), positive(element(body[size:], 0x02))


def element(encoded: bytes, tag: int) -> bytes:
    """The content of an element that takes up all bytes; no length here needs more than one byte and a
    prefix.
    """
    if len(encoded) < 2 or encoded[0] != tag:
        raise NotDerError
    size, start = encoded[1], 2
    if size >= 0x80:
        if size != 0x81 or len(encoded) < 3 or encoded[2] < 0x80:
            raise NotDerError
        size, start = encoded[2], 3
    if len(encoded) != start + size:
        raise NotDerError
    return encoded[start:]


def positive(content: bytes) -> bytes:
    if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80):
        raise NotDerError
    return content.lstrip(b"\0") or b"\0"


def holds(key: bytes, scheme: str, structure: bytes, message: bytes) -> bool:
    """Whether it verifies; only our own refusals count as a no."""
    try:
        signature = parse_signature(structure)
        verify_signature(load_der_public_key(key), scheme, SHA256, signature, message)  # type: ignore[arg-type]
    except AttestationError:
        return False
    return True


def ecdsa_holds(key: bytes, test: dict[str, Any]) -> bool:
    try:
        r, s = strict_der(bytes.fromhex(test["sig"]))
    except NotDerError:
        return False
    structure = struct.pack(">HH", 0x0018, 0x000B) + forge.sized(r) + forge.sized(s)
    return holds(key, "ecdsa", structure, bytes.fromhex(test["msg"]))


@pytest.mark.parametrize("case", RSA, ids=number_of)
def test_rsa_signatures_are_judged_as_published(case: Case) -> None:
    """The one "acceptable" case leaves out the NULL of the digest's algorithm: we refuse it."""
    key, test = case
    structure = struct.pack(">HH", 0x0014, 0x000B) + forge.sized(bytes.fromhex(test["sig"]))
    assert holds(key, "rsassa", structure, bytes.fromhex(test["msg"])) == (test["result"] == "valid")


@pytest.mark.parametrize("case", ECDSA, ids=number_of)
def test_qt_9_ecdsa_signatures_are_judged_as_published(case: Case) -> None:
    key, test = case
    assert ecdsa_holds(key, test) == (test["result"] == "valid")


def test_all_wycheproof_cases_are_judged_and_most_reach_the_verifier() -> None:
    undecoded = 0
    for _, test in ECDSA:
        try:
            strict_der(bytes.fromhex(test["sig"]))
        except NotDerError:
            undecoded += 1
            assert test["result"] == "invalid"
    print(f"{len(RSA)} RSA and {len(ECDSA)} ECDSA cases, of which {undecoded} are refused at decoding")
    for name, found in (
        ("wycheproof-rsa-signature-2048-sha256", RSA),
        ("wycheproof-ecdsa-secp256r1-sha256", ECDSA),
    ):
        expected = json.loads((VECTORS / "adversarial" / name / "expected.json").read_text())["expected"]
        assert len(found) == expected["count"]
    assert undecoded < len(ECDSA) - 174


@pytest.mark.parametrize("case", [case for case in ECDSA if case[1]["result"] == "valid"], ids=number_of)
def test_the_same_numbers_hold_as_a_jws_value_and_cut_short_they_do_not(case: Case) -> None:
    der, test = case
    key, message = load_der_public_key(der), bytes.fromhex(test["msg"])
    value = b"".join(number.rjust(32, b"\0") for number in strict_der(bytes.fromhex(test["sig"])))
    verify_jws_value(key, "ES256", value, message)  # type: ignore[arg-type]
    for wrong in (value[:-1], value + b"\0", value[1:], value[::-1], bytes.fromhex(test["sig"])):
        with pytest.raises(EvidenceError) as refusal:
            verify_jws_value(key, "ES256", wrong, message)  # type: ignore[arg-type]
        assert refusal.value.reason == "bad_signature"
