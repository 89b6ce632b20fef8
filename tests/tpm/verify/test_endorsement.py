"""Does an endorsement speak of this key and no other, and does all else end in a reason of ours?"""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attester import public_area
from tests.tpm.verify.authorities import NOW, Authority, ek_form
from tpm.errors import EvidenceError, StructureError
from tpm.structures.public import PublicArea, parse_public
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_reader import certificate_in_nv, read_certificate
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement import verify_endorsement

# The library warns of what genuine and mutated certificates have; neither is our mistake.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length", "ignore:Parsed a serial number")

ROOT = Authority.root()
MAKER = ROOT.authority("Maker CA")
LEAF = MAKER.endorse()
RSA, OTHER_RSA = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
P256, OTHER_P256 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
VECTORS = Path(__file__).parents[2] / "vectors" / "ek_certs"
GENUINE = [path.read_bytes() for path in sorted(VECTORS.glob("*/cert.der"))]


def ek(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> PublicArea:
    return parse_public(public_area(key, attributes=0x000300B2))


def reason(certificate: bytes, chain: list[bytes], key: PublicArea | None = None) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify_endorsement(certificate, chain, roots=[ROOT.certificate], ek=key, now=NOW)
    return caught.value.reason


@pytest.mark.parametrize(("key", "other"), [(RSA, OTHER_RSA), (P256, OTHER_P256), (RSA, P256), (P256, RSA)])
def test_ac_5_the_certificate_speaks_of_the_key_that_was_sent(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, other: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    leaf = ROOT.endorse(ek_form(key.public_key()))
    verified = verify_endorsement(leaf, [], roots=[ROOT.certificate], ek=ek(key), now=NOW)
    assert verified.key == key.public_key()
    assert reason(leaf, [], ek(other)) == "ek_key_mismatch"


def test_a_public_area_without_a_key_is_its_senders_mistake() -> None:
    broken = replace(ek(P256), unique=(b"\x01", b"\x02"))
    with pytest.raises(StructureError):
        verify_endorsement(
            ROOT.endorse(ek_form(P256.public_key())), [], roots=[ROOT.certificate], ek=broken, now=NOW
        )


def test_a_certificate_of_more_than_16_kib_is_not_read() -> None:
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")
    big = x509.UnrecognizedExtension(oid, b"\x04\x82\x40\x00" + bytes(0x4000))
    huge = ROOT.endorse(ek_form().having(big, False))
    huge_maker = ROOT.changed(lambda form: form.having(big, False), "Maker CA")
    assert reason(huge, []) == "ek_certificate_too_large"
    assert reason(huge_maker.endorse(), [huge_maker.der]) == "ek_certificate_too_large"
    small = x509.UnrecognizedExtension(oid, b"\x04\x82\x30\x00" + bytes(0x3000))
    leaf = ROOT.endorse(ek_form().having(small, False))
    assert verify_endorsement(leaf, [], roots=[ROOT.certificate], ek=None, now=NOW)


def test_an_unreadable_certificate_is_refused_wherever_it_stands() -> None:
    leaf = MAKER.endorse()
    for damaged in (b"", b"\x30", leaf[:-1], leaf + b"\x00", b"-----BEGIN CERTIFICATE-----"):
        assert reason(damaged, [MAKER.der]) == "ek_certificate_unreadable"
    assert reason(leaf, [MAKER.der, MAKER.der + b"\xff"]) == "ek_certificate_unreadable"
    assert verify_endorsement(leaf, [MAKER.der], roots=[ROOT.certificate], ek=None, now=NOW)


def test_digests_in_the_answer_are_of_the_bytes() -> None:
    leaf = ROOT.endorse()
    verified = verify_endorsement(leaf, [], roots=[ROOT.certificate], ek=None, now=NOW)
    assert verified.certificate_sha256 == hashlib.sha256(leaf).hexdigest()
    assert verified.root_sha256 == hashlib.sha256(ROOT.der).hexdigest()


@pytest.mark.parametrize("key", [RSA, P256], ids=["RSA", "P-256"])
def test_a_device_identifier_is_the_sha_256_of_its_eks_public_key_info(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert device_identifier(key.public_key()) == hashlib.sha256(info).hexdigest()
    assert device_identifier(ek(key).public_key()) == device_identifier(key.public_key())


@pytest.mark.parametrize("padding", [b"", b"\x00", b"\xff", bytes(700), b"\xff" * 700])
def test_padding_in_nv_memory_is_stripped(padding: bytes) -> None:
    for leaf in [ROOT.endorse(), *GENUINE]:
        assert certificate_in_nv(leaf + padding) == leaf


@pytest.mark.parametrize("rest", [b"\x01", b"\x00\xff", b"\xff\x00", b"\x00" * 10 + b"\x30"])
def test_another_rest_is_not_padding(rest: bytes) -> None:
    leaf = ROOT.endorse()
    assert certificate_in_nv(leaf + rest) == leaf + rest
    assert reason(certificate_in_nv(leaf + rest), []) == "ek_certificate_unreadable"


def test_what_is_no_der_stays_as_it_is() -> None:
    for raw in (
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\x84\x00\x00\x00\x01\x00",
        b"\x30\x82\xff\xff",
        b"\x30\x05\x00",
    ):
        assert certificate_in_nv(raw) == raw


@given(st.binary(max_size=64) | st.binary(max_size=2048))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_of_others(raw: bytes) -> None:
    assert certificate_in_nv(raw) in (raw, raw[: len(certificate_in_nv(raw))])
    with pytest.raises(EvidenceError):
        verify_endorsement(raw, [raw], roots=[ROOT.certificate], ek=None, now=NOW)


def read_or_refuse(raw: bytes) -> Certificate | None:
    try:
        return read_certificate(raw)
    except EvidenceError:
        return None


@given(
    st.sampled_from([LEAF, MAKER.endorse(ek_form(P256.public_key())), MAKER.der, *GENUINE]),
    st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 3),
)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_certificates_raise_nothing_of_others(
    raw: bytes, edits: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(raw)
    for offset, value in edits:
        damaged[offset % len(damaged)] = value
    sent = bytes(damaged[: len(damaged) - cut])
    read = read_or_refuse(sent)
    assert read is None or read.raw == sent
    for leaf, chain in ((sent, [MAKER.der]), (LEAF, [sent]), (LEAF, [sent, MAKER.der])):
        try:
            verified = verify_endorsement(leaf, chain, roots=[ROOT.certificate], ek=None, now=NOW)
        except EvidenceError:
            continue
        assert leaf == raw or chain[-1] == MAKER.der
        assert verified.root_sha256 == hashlib.sha256(ROOT.der).hexdigest()
