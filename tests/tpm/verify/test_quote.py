"""Does a quote hold only if this key signed it, for this request, from this place?"""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.tpm import forge
from tests.tpm.machine import Machine, machine, values_of
from tpm.errors import AttestationError, EvidenceError
from tpm.structures.algorithms import SHA256, SHA384, hash_by_name
from tpm.structures.attest import parse_quote
from tpm.structures.public import parse_public
from tpm.structures.signature import Signature, parse_signature
from tpm.verify.keys import accept_attestation_key
from tpm.verify.quote import VerifiedQuote, verify_quote
from tpm.verify.signature import verify_signature

BANKS = (("sha256", (0, 7)),)
VALUES = values_of("sha256", (0, 7))
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEYS = [
    ("rsa2048", "rsassa", "sha256"), ("rsa2048", "rsassa", "sha384"), ("rsa2048", "rsapss", "sha256"),
    ("rsa3072", "rsapss", "sha384"), ("p256", "ecdsa", "sha256"), ("p384", "ecdsa", "sha384"),
    ("p521", "ecdsa", "sha384"), ("p521", "ecdsa", "sha256"),
]  # fmt: skip


def check(sender: Machine, raw: bytes, signature: Signature, **demands: Any) -> VerifiedQuote:
    """A verifier that knows `sender`; `demands` change what it expects."""
    expected = {"ak": sender.ak, "expected_extra_data": forge.NONCE, "expected_signers": sender.signers}
    return verify_quote(parse_quote(raw), signature, **{**expected, **demands})


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationError) as refusal:
        call()
    return refusal.value.reason


@pytest.mark.parametrize(("kind", "scheme", "hash"), KEYS)
def test_a_quote_of_every_kind_of_key_holds(kind: str, scheme: str, hash: str) -> None:
    sender = machine(kind, scheme, hash)
    raw = sender.quote_bytes(BANKS, VALUES)
    verified = check(sender, raw, sender.sign(raw))
    assert verified == VerifiedQuote(parse_quote(raw), sender.ak.name)


def test_a_salt_of_any_length_holds_for_rsapss() -> None:
    """TPMs of different age take the digest's length or as much as fits."""
    sender = machine("rsa2048", "rsapss")
    raw = sender.quote_bytes(BANKS, VALUES)

    longest = padding.PSS(padding.MGF1(forge.HASHES["sha256"]), padding.PSS.MAX_LENGTH)
    value = sender.key.sign(raw, longest, forge.HASHES["sha256"])  # type: ignore[call-arg, arg-type]
    check(sender, raw, parse_signature(forge.signing_scheme("rsapss") + forge.sized(value)))


def test_qt_2_a_good_signature_does_not_make_other_bytes_a_tpms() -> None:
    sender = machine()
    healthy = sender.quote_bytes(BANKS, VALUES)
    check(sender, healthy, sender.sign(healthy))
    for magic in (0xFF544348, 0x00000000, 0x474354FF):
        forged = sender.quote_bytes(BANKS, VALUES, magic=magic)
        verify_signature(sender.ak.key, "ecdsa", SHA256, sender.sign(forged), forged)
        assert reason_of(lambda raw=forged: check(sender, raw, sender.sign(raw))) == "not_tpm_generated"


@pytest.mark.parametrize("kind", [0x8014, 0x8015, 0x8016, 0x8017, 0x8019, 0x801A, 0x801C])
def test_a_good_signature_does_not_make_another_statement_a_quote(kind: int) -> None:
    sender = machine()
    forged = sender.quote_bytes(BANKS, VALUES, kind=kind)
    verify_signature(sender.ak.key, "ecdsa", SHA256, sender.sign(forged), forged)
    assert reason_of(lambda: check(sender, forged, sender.sign(forged))) == "wrong_type"


@pytest.mark.parametrize(("kind", "scheme", "hash"), KEYS)
def test_qt_7_a_quote_of_another_machine_is_refused(kind: str, scheme: str, hash: str) -> None:
    """It may even claim the victim's qualified Name."""
    victim, other = machine(kind, scheme, hash), machine(kind, scheme, hash, which=1)
    relayed = other.quote_bytes(BANKS, VALUES, signer=victim.signer)
    check(other, relayed, other.sign(relayed), expected_signers=victim.signers)
    assert reason_of(lambda: check(victim, relayed, other.sign(relayed))) == "bad_signature"


def schemes() -> dict[str, tuple[Machine, Callable[[bytes], bytes], str]]:
    """Name → (whose key is enrolled, how the quote is signed, the refusal)."""
    pkcs1, pss, ecc = machine("rsa2048", "rsassa"), machine("rsa2048", "rsapss"), machine()

    def relabelled(own: Machine, head: str) -> Callable[[bytes], bytes]:
        return lambda raw: bytes.fromhex(head) + own.sign(raw).raw[4:]

    def hashed(own: Machine, hash: str) -> Callable[[bytes], bytes]:
        return lambda raw: forge.sign(own.key, raw, own.scheme, hash)

    def valued(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        return lambda raw: bytes.fromhex("0014000b") + forge.sized(change(pkcs1.sign(raw).value))

    return {
        "rsapss under an RSASSA key": (pkcs1, lambda raw: pss.sign(raw).raw, "scheme_mismatch"),
        "rsassa under an RSAPSS key": (pss, lambda raw: pkcs1.sign(raw).raw, "scheme_mismatch"),
        "rsassa called RSAPSS": (pss, relabelled(pkcs1, "0016000b"), "bad_signature"),
        "rsapss called RSASSA": (pkcs1, relabelled(pss, "0014000b"), "bad_signature"),
        "SHA-1": (pkcs1, hashed(pkcs1, "sha1"), "scheme_mismatch"),
        "SHA-1 by ECDSA": (ecc, hashed(ecc, "sha1"), "scheme_mismatch"),
        "SHA-1 called SHA-256": (
            ecc,
            lambda raw: bytes.fromhex("0018000b") + hashed(ecc, "sha1")(raw)[4:],
            "bad_signature",
        ),
        "SHA-512": (ecc, hashed(ecc, "sha512"), "scheme_mismatch"),
        "SHA-384": (ecc, hashed(ecc, "sha384"), "scheme_mismatch"),
        "ECC structure under an RSA key": (pkcs1, lambda raw: ecc.sign(raw).raw, "scheme_mismatch"),
        "RSA structure under an ECC key": (ecc, lambda raw: pkcs1.sign(raw).raw, "scheme_mismatch"),
        "HMAC": (ecc, lambda raw: bytes.fromhex("0005000b") + bytes(32), "unknown_signature"),
        "NULL": (ecc, lambda raw: bytes.fromhex("0010"), "unknown_signature"),
        "ECDAA": (ecc, relabelled(ecc, "001a000b"), "unknown_signature"),
        "SM2": (ecc, relabelled(ecc, "001b000b"), "unknown_signature"),
        "empty RSA value": (pkcs1, valued(lambda value: b""), "bad_signature"),
        "RSA value one byte short": (pkcs1, valued(lambda value: value[1:]), "bad_signature"),
        "RSA value with a zero in front": (pkcs1, valued(lambda value: b"\0" + value), "bad_signature"),
        "RSA value of zero": (pkcs1, valued(lambda value: bytes(256)), "bad_signature"),
        "RSA value of one": (pkcs1, valued(lambda value: bytes(255) + b"\1"), "bad_signature"),
    }


@pytest.mark.parametrize("game", schemes())
def test_qt_8_the_signature_does_not_choose_its_algorithm(game: str) -> None:
    enrolled, sign, reason = schemes()[game]
    raw = enrolled.quote_bytes(BANKS, VALUES)
    check(enrolled, raw, enrolled.sign(raw))
    assert reason_of(lambda: check(enrolled, raw, parse_signature(sign(raw)))) == reason


def test_a_key_is_never_used_for_another_types_scheme() -> None:
    """Nobody can enrol such a key; whoever calls with one gets a refusal and no AttributeError."""
    pkcs1, ecc = machine("rsa2048", "rsassa"), machine()
    for key, signature in ((ecc.ak.key, pkcs1.sign(b"x")), (pkcs1.ak.key, ecc.sign(b"x"))):
        refused = reason_of(lambda k=key, s=signature: verify_signature(k, s.scheme, s.hash, s, b"x"))
        assert refused == "scheme_mismatch"


def test_qt_9_numbers_outside_the_curves_order_are_refused() -> None:
    sender = machine()
    raw = sender.quote_bytes(BANKS, VALUES)
    good = sender.sign(raw)
    check(sender, raw, good)
    edges = (0, 1, P256_ORDER - 1, P256_ORDER, P256_ORDER + 1, 2**256 - 1)
    forged = [(r, s) for r in edges for s in edges]
    forged += [(good.r, edge) for edge in edges] + [(edge, good.s) for edge in edges]
    forged += [(good.r + P256_ORDER, good.s), (good.r, good.s + P256_ORDER), (good.s, good.r)]
    for r, s in forged:
        structure = parse_signature(forge.ecdsa_signature(r, s, size=66))
        assert reason_of(lambda sig=structure: check(sender, raw, sig)) == "bad_signature"


def test_qt_9_short_and_padded_numbers_hold_only_with_the_same_value() -> None:
    sender = machine()
    raw = sender.quote_bytes(BANKS, VALUES)
    good = sender.sign(raw)
    check(sender, raw, parse_signature(forge.ecdsa_signature(good.r, good.s, size=66)))
    shifted = parse_signature(forge.ecdsa_signature(good.r << 8, good.s, size=33))
    assert reason_of(lambda: check(sender, raw, shifted)) == "bad_signature"
    empty = parse_signature(struct.pack(">HHHH", 0x0018, 0x000B, 0, 0))
    assert reason_of(lambda: check(sender, raw, empty)) == "bad_signature"


NONCES = {
    "empty": b"",
    "prefix": forge.NONCE[:-1],
    "padded": forge.NONCE + b"\0",
    "padded in front": b"\0" + forge.NONCE,
    "truncated": forge.NONCE[:16],
    "doubled": forge.NONCE * 2,
    "zero": bytes(32),
    "reversed": forge.NONCE[::-1],
    "as text": forge.NONCE.hex().upper().encode()[:64],
}


@pytest.mark.parametrize("alias", NONCES)
def test_ch_6_the_qualifying_data_is_the_same_bytes_at_the_same_length(alias: str) -> None:
    sender = machine()
    healthy, raw = (sender.quote_bytes(BANKS, VALUES, extra=extra) for extra in (forge.NONCE, NONCES[alias]))
    check(sender, healthy, sender.sign(healthy))
    expected = "nonce_missing" if alias == "empty" else "nonce_mismatch"
    assert reason_of(lambda: check(sender, raw, sender.sign(raw))) == expected


def test_an_empty_nonce_is_demanded_only_by_asking_for_it() -> None:
    sender = machine()
    empty, full = (sender.quote_bytes(BANKS, VALUES, extra=extra) for extra in (b"", forge.NONCE))
    check(sender, empty, sender.sign(empty), expected_extra_data=b"")
    assert (
        reason_of(lambda: check(sender, full, sender.sign(full), expected_extra_data=b"")) == "nonce_mismatch"
    )


SIGNERS: dict[str, Callable[[bytes], bytes]] = {
    "nobody": lambda signer: b"",
    "a handle": lambda signer: forge.ENDORSEMENT,
    "zero": lambda signer: signer[:2] + bytes(32),
    "another hash": lambda signer: b"\x00\x0c" + signer[2:],
    "longer": lambda signer: signer + b"\0",
    "shorter": lambda signer: signer[:-1],
}


@pytest.mark.parametrize("claim", SIGNERS)
def test_qt_12_the_signer_is_where_we_compute_it_to_be(claim: str) -> None:
    sender = machine()
    healthy = sender.quote_bytes(BANKS, VALUES)
    check(sender, healthy, sender.sign(healthy))
    raw = sender.quote_bytes(BANKS, VALUES, signer=SIGNERS[claim](sender.signer))
    assert reason_of(lambda: check(sender, raw, sender.sign(raw))) == "qualified_signer"


def test_no_known_signer_refuses_and_an_unknown_place_must_be_said() -> None:
    sender = machine()
    raw = sender.quote_bytes(BANKS, VALUES, signer=b"")
    refused = reason_of(lambda: check(sender, raw, sender.sign(raw), expected_signers=frozenset()))
    assert refused == "qualified_signer"
    check(sender, raw, sender.sign(raw), expected_signers=None)
    with pytest.raises(TypeError):
        verify_quote(parse_quote(raw), sender.sign(raw), ak=sender.ak, expected_extra_data=forge.NONCE)  # type: ignore[call-arg]


def test_the_signature_is_judged_before_what_was_signed() -> None:
    """Who does not hold the key learns nothing of nonces and signers."""
    sender, stranger = machine(), machine(which=1)
    raw = sender.quote_bytes(BANKS, VALUES, extra=b"", signer=b"")
    assert reason_of(lambda: check(sender, raw, stranger.sign(raw))) == "bad_signature"


def test_the_enrolled_keys_scheme_counts_and_not_its_neighbours() -> None:
    sender = machine()
    raw = sender.quote_bytes(BANKS, VALUES)
    other_hash = replace(sender.ak, hash=SHA384)
    assert reason_of(lambda: check(sender, raw, sender.sign(raw), ak=other_hash)) == "scheme_mismatch"
    assert sender.ak.hash is hash_by_name("sha256")


def test_qt_8_a_short_rsa_key_is_never_enrolled() -> None:

    weak = rsa.generate_private_key(65537, 1024)
    public = parse_public(forge.public_area(weak, scheme=forge.signing_scheme("rsassa")))
    with pytest.raises(EvidenceError) as refusal:
        accept_attestation_key(public)
    assert refusal.value.reason == "weak_key"
