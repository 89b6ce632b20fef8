"""QT-1: is there any bit or byte of a signed structure that could be changed unseen?"""

from collections.abc import Callable, Iterator

import pytest

from tests.tpm import forge
from tests.tpm.machine import machine, values_of
from tpm.errors import AttestationError
from tpm.structures.attest import parse_certification, parse_quote
from tpm.structures.public import parse_public, parse_sized_public
from tpm.structures.signature import parse_signature
from tpm.verify.certified import verify_certified_key
from tpm.verify.keys import AttestationKey, accept_attestation_key
from tpm.verify.quote import verify_quote

KEYS = [("rsa2048", "rsassa"), ("rsa2048", "rsapss"), ("p256", "ecdsa"), ("p384", "ecdsa"), ("p521", "ecdsa")]
BANKS = (("sha256", tuple(range(8))),)
VALUES = values_of("sha256", range(8))


def flips(raw: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def cuts(raw: bytes) -> Iterator[bytes]:
    for size in range(len(raw)):
        yield raw[:size]
    yield raw + b"\0"
    yield b"\0" + raw


def refused(check: Callable[[bytes], object], variants: Iterator[bytes]) -> int:
    """All of them, each by an error of ours."""
    count = 0
    for variant in variants:
        with pytest.raises(AttestationError):
            check(variant)
        count += 1
    return count


@pytest.mark.parametrize(("kind", "scheme"), KEYS)
def test_qt_1_every_flip_and_every_cut_of_a_quote_is_refused(kind: str, scheme: str) -> None:
    sender = machine(kind, scheme)
    raw = sender.quote_bytes(BANKS, VALUES)
    signature = sender.sign(raw)

    def check(variant: bytes) -> None:
        # Without a demand on nonce and signer: the signature alone must find it.
        quote = parse_quote(variant)
        verify_quote(
            quote, signature, ak=sender.ak, expected_extra_data=quote.extra_data, expected_signers=None
        )

    check(raw)
    assert refused(check, flips(raw)) == 8 * len(raw) == 1160
    assert refused(check, cuts(raw)) == len(raw) + 2


@pytest.mark.parametrize(("kind", "scheme"), KEYS)
def test_qt_1_every_flip_and_every_cut_of_a_signature_is_refused(kind: str, scheme: str) -> None:
    sender = machine(kind, scheme)
    raw = sender.quote_bytes(BANKS, VALUES)
    quote, structure = parse_quote(raw), sender.sign(raw).raw

    def check(variant: bytes) -> None:
        signature = parse_signature(variant)
        verify_quote(
            quote, signature, ak=sender.ak, expected_extra_data=forge.NONCE, expected_signers=sender.signers
        )

    check(structure)
    assert refused(check, flips(structure)) == 8 * len(structure)
    assert refused(check, cuts(structure)) == len(structure) + 2


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("role", ["signing", "parent"])
def test_qt_1_every_flip_and_every_cut_of_a_certified_public_area_is_refused(kind: str, role: str) -> None:
    sender = machine()
    hash, scheme = {
        "rsa2048": ("sha256", "rsapss"),
        "p256": ("sha256", "ecdsa"),
        "p384": ("sha384", "ecdsa"),
    }[kind]
    shape = (
        {"attributes": forge.CREDENTIAL, "scheme": forge.signing_scheme(scheme, hash)}
        if role == "signing"
        else {"attributes": forge.STORAGE, "symmetric": forge.AES128CFB}
    )
    public = forge.public_area(forge.private_key(kind), **shape)  # type: ignore[arg-type]
    certification, signature = sender.certify(public)
    demands = {"ak": sender.ak, "expected_extra_data": forge.NONCE, "expected_signers": sender.signers}

    def check(variant: bytes) -> None:
        area = parse_sized_public(variant)
        verify_certified_key(certification, signature, area, **demands)  # type: ignore[arg-type]

    sized = forge.sized(public)
    check(sized)
    assert refused(check, flips(sized)) == 8 * len(sized)
    assert refused(check, cuts(sized)) == len(sized) + 2


def test_qt_1_every_flip_and_every_cut_of_a_certification_is_refused() -> None:
    sender = machine()
    public = forge.public_area(
        forge.private_key("p256", 1), attributes=forge.CREDENTIAL, scheme=forge.signing_scheme("ecdsa")
    )
    certification, signature = sender.certify(public)
    area = parse_public(public)

    def check(variant: bytes) -> None:
        changed = parse_certification(variant)
        verify_certified_key(
            changed,
            signature,
            area,
            ak=sender.ak,
            expected_extra_data=changed.extra_data,
            expected_signers=None,
        )

    check(certification.raw)
    assert refused(check, flips(certification.raw)) == 8 * len(certification.raw)
    assert refused(check, cuts(certification.raw)) == len(certification.raw) + 2


@pytest.mark.parametrize(("kind", "scheme"), [("rsa2048", "rsassa"), ("p256", "ecdsa")])
def test_qt_1_every_flip_of_an_attestation_key_is_refused_or_is_another_key(kind: str, scheme: str) -> None:
    """No signature covers it at enrolment: another Name opens no credential, and no old quote holds under
    it.
    """
    sender = machine(kind, scheme)
    raw = sender.quote_bytes(BANKS, VALUES)
    quote, signature = parse_quote(raw), sender.sign(raw)

    def enrol(variant: bytes) -> AttestationKey | None:
        try:
            return accept_attestation_key(parse_public(variant))
        except AttestationError:
            return None

    others = 0
    for variant in flips(sender.ak.public.raw):
        changed = enrol(variant)
        if changed is None:
            continue
        others += 1
        assert changed.name != sender.ak.name
        if changed.key != sender.ak.key or (changed.scheme, changed.hash) != (sender.scheme, sender.ak.hash):
            with pytest.raises(AttestationError):
                verify_quote(
                    quote, signature, ak=changed, expected_extra_data=forge.NONCE, expected_signers=None
                )
    assert enrol(sender.ak.public.raw) == sender.ak
    assert 0 < others < 8 * len(sender.ak.public.raw)
