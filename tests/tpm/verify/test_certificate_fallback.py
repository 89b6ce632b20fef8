"""Does the second reader read what the first one reads, and nothing that DER's other rules forbid?"""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import core
from asn1crypto import x509 as oracle
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.tpm.verify.authorities import NOW, Authority, ek_form, signed_anew
from tests.tpm.verify.test_endorsement_vectors import CASES, VECTORS, ders
from tpm.errors import EvidenceError
from tpm.verify.certificate import Certificate, is_signed_by
from tpm.verify.certificate_fallback import read_leniently
from tpm.verify.certificate_reader import certificate_in_nv, read_certificate
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement import verify_endorsement

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

FOLDERS = ("ek_certs", "ek_roots", "acme_device_attest")
ONLY_THE_SECOND = 23
KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = Authority.root("Maker Root", KEY)
LEAF = ROOT.endorse()


@cache
def genuine() -> tuple[tuple[str, bytes], ...]:
    """Every certificate of the vectors, with a name for it."""
    found = []
    for folder in FOLDERS:
        for path in sorted((VECTORS / folder).glob("*/*")):
            if path.suffix in (".der", ".pem", ".crt", ".cer"):
                found += [(f"{path.parent.name}/{path.name}", certificate_in_nv(der)) for der in ders(path)]
    return tuple(found)


def plain(certificate: Certificate) -> dict[str, Any]:
    """All that it says, in values that can be compared."""
    told = {field.name: getattr(certificate, field.name) for field in fields(certificate)}
    signature = certificate.signature
    scheme = signature.scheme
    told["key"] = device_identifier(certificate.key)
    told["signature"] = (signature.message, signature.value, signature.hash_name, type(scheme).__name__)
    if isinstance(scheme, padding.PSS):
        told["pss"] = (scheme._salt_length, scheme.mgf._algorithm.name)
    return told


def first_reader(raw: bytes) -> Certificate | None:
    """What cryptography makes of it: the second reader is not asked where the first one reads."""
    try:
        x509.load_der_x509_certificate(raw).public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        return None
    return read_certificate(raw)


def test_both_readers_say_the_same_of_every_certificate_that_both_read() -> None:
    both, second = 0, []
    for name, raw in genuine():
        read = first_reader(raw)
        if read is None:
            second.append(name)
        else:
            assert plain(read_leniently(raw)) == plain(read), name
            both += 1
    print(f"{both} certificates read alike by both readers; {len(second)} by the second alone")
    assert both == 176
    assert len(second) == ONLY_THE_SECOND


def test_what_the_second_reader_reads_alone_another_parser_reads_alike() -> None:
    alone = [(name, raw) for name, raw in genuine() if first_reader(raw) is None]
    for name, raw in alone:
        ours, theirs = read_leniently(raw), oracle.Certificate.load(raw, strict=True)
        body = theirs["tbs_certificate"]
        assert (ours.serial, ours.subject, ours.issuer) == (
            theirs.serial_number,
            body["subject"].dump(),
            body["issuer"].dump(),
        ), name
        assert (ours.not_before, ours.not_after) == (theirs.not_valid_before, theirs.not_valid_after)
        assert ours.signature.message == body.dump()
        assert ours.signature.value == theirs.signature
        assert ours.is_ca is bool(theirs.ca)
        assert ours.key_identifier == theirs.key_identifier
        assert ours.critical == {one.dotted for one in map(_oid, body["extensions"]) if one is not None}
        if isinstance(ours.key, rsa.RSAPublicKey):
            numbers = body["subject_public_key_info"]["public_key"].parsed
            assert numbers["modulus"].native == ours.key.public_numbers().n
    print(f"{len(alone)} certificates read alike by the second reader and by asn1crypto")
    assert len(alone) == ONLY_THE_SECOND


def _oid(extension: Any) -> Any:
    return extension["extn_id"] if extension["critical"].native else None


def test_a_root_that_only_the_second_reader_reads_signs_itself() -> None:
    roots = [one for _, raw in genuine() if first_reader(raw) is None and (one := read_leniently(raw)).is_ca]
    assert len(roots) > 10
    for root in roots:
        assert root.subject != root.issuer or is_signed_by(root, root.key)


# --- what is forgiven -----------------------------------------------------------------------------


def signed_bytes(certificate: bytes, old: bytes, new: bytes, key: Any = KEY) -> bytes:
    """The certificate with `old` replaced by as many bytes in what is signed, signed by `key`."""
    body = certificate[4 : 4 + len(read_certificate(certificate).signature.message)]
    assert body.count(old) == 1
    assert len(old) == len(new)
    body = body.replace(old, new)
    signature = b"\0" + key.sign(body, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    content = body + algorithm + b"\x03" + bytes([len(signature)]) + signature
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def several_in_a_set() -> bytes:
    """A leaf whose subject is one set of two attributes, as Nuvoton writes them, in DER's order."""
    part = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, "ab")]
    )
    return ROOT.endorse(ek_form(subject=x509.Name([part])))


_COUNTRY, _COMMON_NAME = bytes.fromhex("3009060355040613024445"), bytes.fromhex("300906035504030c026162")
FORGIVEN = {
    "a key labelled RSAES-OAEP": (
        LEAF,
        bytes.fromhex("300d06092a864886f70d0101010500"),
        bytes.fromhex("300d06092a864886f70d0101070500"),
    ),
    "a set out of order": (several_in_a_set(), _COMMON_NAME + _COUNTRY, _COUNTRY + _COMMON_NAME),
}


@pytest.mark.parametrize(("leaf", "old", "new"), FORGIVEN.values(), ids=FORGIVEN)
def test_a_genuine_deviation_is_read_and_still_has_to_be_signed(leaf: bytes, old: bytes, new: bytes) -> None:
    changed = signed_bytes(leaf, old, new)
    assert first_reader(changed) is None
    verified = verify_endorsement(changed, [], roots=[ROOT.certificate], ek=None, now=NOW)
    assert device_identifier(verified.key) == device_identifier(read_certificate(leaf).key)
    forged = signed_bytes(leaf, old, new, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(EvidenceError) as caught:
        verify_endorsement(forged, [], roots=[ROOT.certificate], ek=None, now=NOW)
    assert caught.value.reason == "ek_signature"


# --- what is not -----------------------------------------------------------------------------------


def patched(offset_of: bytes, *, by: int, to: bytes) -> bytes:
    """The leaf with some bytes after a mark replaced; the length stays."""
    at = LEAF.index(offset_of) + by
    return LEAF[:at] + to + LEAF[at + len(to) :]


def twice(certificate: oracle.Certificate) -> None:
    extensions = certificate["tbs_certificate"]["extensions"]
    extensions.append(extensions[0].copy())


def other_algorithm(certificate: oracle.Certificate) -> None:
    certificate["signature_algorithm"]["algorithm"] = "sha384_ecdsa"


def version_two(certificate: oracle.Certificate) -> None:
    certificate["tbs_certificate"]["version"] = "v2"


NOT_FORGIVEN: dict[str, bytes] = {
    "nothing": b"",
    "bytes behind it": LEAF + b"\0",
    "bytes missing": LEAF[:-1],
    "an indefinite length": b"\x30\x80" + LEAF[4:] + b"\0\0",
    "a length in a longer form": b"\x30\x83\x00" + LEAF[2:],
    "a length of four octets": b"\x30\x84\x00\x00" + LEAF[2:],
    "a set instead of a sequence": b"\x31" + LEAF[1:],
    "an extension twice": signed_anew(LEAF, KEY, twice),
    "two signature algorithms": signed_anew(LEAF, KEY, other_algorithm),
    "version 2": signed_anew(LEAF, KEY, version_two),
    "a boolean that is neither": patched(b"\x01\x01\xff", by=2, to=b"\x01"),
    "an exponent of zero": patched(b"\x02\x03\x01\x00\x01", by=2, to=b"\0\0\0"),
    "a negative modulus": patched(b"\x02\x82\x01\x01\x00", by=4, to=b"\xff"),
    "a time without seconds": patched(b"\x17\x0d", by=14, to=b"+"),
    "an object identifier that is cut off": patched(b"\x06\x03\x55\x1d\x11", by=4, to=b"\x91"),
}


@pytest.mark.parametrize("raw", NOT_FORGIVEN.values(), ids=NOT_FORGIVEN)
def test_other_rules_of_der_are_not_forgiven(raw: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        read_certificate(raw)
    assert caught.value.reason == "ek_certificate_unreadable"
    assert read_certificate(LEAF).raw == LEAF


def test_a_structure_of_many_elements_is_refused_at_once() -> None:
    content = b"\x05\x00" * 5000
    raw = b"\x30\x82" + len(content).to_bytes(2, "big") + content
    began = time.perf_counter()
    with pytest.raises(ValueError, match="more than 256"):
        read_leniently(raw)
    assert time.perf_counter() - began < 0.1


def test_deep_nesting_needs_no_stack() -> None:
    raw = b""
    while len(raw) < 60000:
        raw = b"\x30\x82" + len(raw).to_bytes(2, "big") + raw
    with pytest.raises(ValueError, match="deeper"):
        read_leniently(raw)


# --- mutations -------------------------------------------------------------------------------------


def mutated(raw: bytes, dice: random.Random) -> bytes:
    """One to three edits: a bit, an octet, a cut, a repetition, or a length."""
    made = bytearray(raw)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(made))
        match dice.randrange(5):
            case 0:
                made[at] ^= 1 << dice.randrange(8)
            case 1:
                made[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 2:
                del made[at : at + dice.randint(1, 8)]
            case 3:
                made[at:at] = made[at : at + dice.randint(1, 16)]
            case _:
                made[at] = (made[at] + dice.choice((-1, 1))) & 0xFF
        if not made:
            made = bytearray(b"\x30")
    return bytes(made)


def mutations(count: int) -> Iterator[bytes]:
    dice = random.Random(20261125)
    seeds = [(case / "cert.der").read_bytes() for case in CASES]
    for number in range(count):
        yield mutated(seeds[number % len(seeds)], dice)


def test_mutations_raise_nothing_foreign_and_are_read_as_another_parser_reads_them() -> None:
    read = 0
    for raw in mutations(6000):
        certificate = None
        with suppress(ValueError):
            certificate = read_leniently(raw)
        if certificate is None:
            continue
        read += 1
        assert reencoded(raw) == raw
        strict = first_reader(raw)
        if strict is not None:
            assert plain(replace(certificate, title="", issuer_title="")) == plain(
                replace(strict, title="", issuer_title="")
            )
    print(f"6000 mutations, {read} of them readable")
    assert read > 100


def reencoded(raw: bytes) -> bytes:
    """All elements written anew by another library, from their values: tag, shortest length, content."""
    return core.Asn1Value.load(raw, strict=True).dump(force=True)


def test_the_signed_bytes_are_those_that_were_sent() -> None:
    path = Path(VECTORS / "ek_certs" / "nuvoton-keylime" / "cert.der")
    raw = path.read_bytes()
    read = read_certificate(raw)
    assert read.raw == raw
    assert raw[4 : 4 + len(read.signature.message)] == read.signature.message


def test_rsassa_pss_is_read_with_its_parameters() -> None:
    key = rsa.generate_private_key(65537, 2048)
    form = ek_form()
    builder = (
        x509.CertificateBuilder(form.subject, form.subject, form.key, 7, form.not_before, form.not_after)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .sign(key, hashes.SHA384(), rsa_padding=padding.PSS(padding.MGF1(hashes.SHA384()), 48))
    )
    raw = builder.public_bytes(Encoding.DER)
    assert plain(read_leniently(raw)) == plain(read_certificate(raw))
    assert is_signed_by(read_leniently(raw), key.public_key())
