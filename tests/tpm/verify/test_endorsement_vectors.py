"""Do genuine EK certificates, and others that were found beside them, get the answer that they deserve?"""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from tpm.errors import EvidenceError
from tpm.verify.certificate import Certificate, is_signed_by
from tpm.verify.certificate_reader import certificate_in_nv, read_certificate
from tpm.verify.endorsement import VerifiedEndorsement, verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors, find_path

# Genuine names are longer than X.520 allows.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

VECTORS = Path(__file__).parents[2] / "vectors"
CASES = sorted(path.parent for path in (VECTORS / "ek_certs").glob("*/expected.json"))
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 25, tzinfo=UTC)

GENUINE = {
    "gce-pca-rsa-enc": (None, None, None),
    "gce-uca-rsa-enc": ("GOOG", "vTPM", "id:20160511"),
    "intel-ptt-spth": ("INTC", "SPT", "id:00020000"),
    "nuvoton-attezt": ("NTC", "NPCT75x", "id:00070002"),
    "nuvoton-guard": ("NTC", "NPCT75x", "id:00070002"),
    "nuvoton-keylime": ("NTC", "NPCT75x", "id:00070002"),
    "stm-rsa-ca05": ("STM", "ST33HTPHAHB4", "id:00490004"),
    "stm-rsa-ca06-paccor": ("STM", "ST33HTPHAHD4", "id:00010101"),
    "stm-rsa-ca06-x1carbon": ("STM", "ST33HTPHAHD8", "id:00010102"),
}
REFUSED = {
    # A local authority, or a maker whose issuing authority is in none of the collections.
    "example-ca-go-tpm-kit": "ek_chain_untrusted",
    "gce-ek-salrashid": "ek_chain_untrusted",
    "infineon-rsa-ca007": "ek_chain_untrusted",
    "infineon-rsa-ca035": "ek_chain_untrusted",
    "swtpm-fedora33": "ek_chain_untrusted",
    "swtpm-localca-rsa": "ek_chain_untrusted",
    # Certificates of attestation keys, which sign and do not decrypt.
    "gce-cos85-ak": "ek_cert_profile",
    "gce-pca-rsa-sign": "ek_cert_profile",
    "gce-uca-rsa-sign-ak": "ek_cert_profile",
    "hirs-aik-identity": "ek_cert_profile",
    # Neither the maker nor the 2048 bits that it should have.
    "hirs-ci-ek": "ek_cert_profile",
    # Readable, genuine, and signed over SHA-1.
    "stm-rsa-ca02-oaep-paccor": "ek_weak_signature",
}


def expected(case: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((case / "expected.json").read_text())
    return found


def ders(path: Path) -> list[bytes]:
    raw = path.read_bytes()
    pem = re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", raw, re.DOTALL)
    return [base64.b64decode(body) for body in pem] or [raw]


@cache
def authorities() -> tuple[tuple[Certificate, ...], tuple[Certificate, ...]]:
    """Roots and intermediates of the collections."""
    found = []
    for path in sorted((VECTORS / "ek_roots").glob("*/*")):
        for der in ders(path) if path.suffix != ".json" else []:
            found.append(read_certificate(certificate_in_nv(der)))
    roots = tuple(one for one in found if one.subject == one.issuer)
    return roots, tuple(one for one in found if one.subject != one.issuer)


def verify(case: Path, *, roots: TrustAnchors, now: datetime | None = None) -> VerifiedEndorsement:
    raw = (case / "cert.der").read_bytes()
    chain = chain_of(raw)
    return verify_endorsement(
        raw, chain, roots=roots, ek=None, now=now or read_certificate(raw).not_before + DAY
    )


def chain_of(raw: bytes) -> list[bytes]:
    """The intermediates above it, as a device would have them in its NV memory."""
    current, chain = read_certificate(raw), []
    while above := [
        one for one in authorities()[1] if one.subject == current.issuer and is_signed_by(current, one.key)
    ]:
        current = above[0]
        chain.append(current.raw)
    return chain


def test_the_collections_hold_what_they_say() -> None:
    for folder in (VECTORS / "ek_roots").iterdir():
        told = expected(folder)["expected"]
        read, refused = 0, 0
        for path in folder.iterdir():
            for der in ders(path) if path.suffix != ".json" else []:
                read += read_certificate(certificate_in_nv(der)).version == 3
                refused += not is_strict(certificate_in_nv(der))
        assert (read, refused) == (told["certificates"], told["unparsable_with_cryptography"])


def is_strict(der: bytes) -> bool:
    """Does cryptography read it?"""
    try:
        x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def test_every_vector_has_its_answer_here() -> None:
    assert {case.name for case in CASES} == GENUINE.keys() | REFUSED.keys()
    assert len(CASES) == 21
    print(f"{len(CASES)} EK certificates: {len(GENUINE)} lead to a collected root, {len(REFUSED)} refused")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_certificate_is_read_as_openssl_reads_it(case: Path) -> None:
    told = expected(case)["expected"]
    read = read_certificate((case / "cert.der").read_bytes())
    assert (read.title == "") == (told["subject"] == "")
    for moment, stated in ((read.not_before, told["not_before"]), (read.not_after, told["not_after"])):
        assert moment == datetime.strptime(stated, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert (read.purposes or frozenset()) == frozenset(told["eku"].split() if told["eku"] else ())
    words = {"Key Encipherment": "keyEncipherment", "Digital Signature": "digitalSignature", "": None}
    assert read.usages == (frozenset({words[told["ku"]]}) if told["ku"] else None)
    assert ("2.5.29.17" in read.critical) == told["san_critical"]
    assert f"{read.serial:x}" == told["serial_hex"].lstrip("0")
    stated = re.findall(r"(2\.23\.133\.2\.\d+)=([^/+]*)", told["san"])
    assert [pair for pair in read.alternative_names or () if pair[0].startswith("2.23.")] == stated


@pytest.mark.parametrize("case", [case for case in CASES if case.name in GENUINE], ids=lambda case: case.name)
def test_a_genuine_certificate_leads_to_its_makers_root(case: Path) -> None:
    told = expected(case)["expected"]
    assert told["chain_to_collected_roots"]
    verified = verify(case, roots=TrustAnchors.of(authorities()[0]))
    assert (verified.manufacturer, verified.model, verified.version) == GENUINE[case.name]
    assert verified.certificate_sha256 == expected(case)["files"]["cert.der"]["sha256"]
    root = next(one for one in authorities()[0] if one.sha256 == verified.root_sha256)
    assert root.title.split(",")[0].removeprefix("CN=")[:20] in told["chain"][-1]
    assert len(chain_of((case / "cert.der").read_bytes())) + 2 == len(told["chain"])


@pytest.mark.parametrize("case", [case for case in CASES if case.name in REFUSED], ids=lambda case: case.name)
def test_what_is_not_a_trusted_makers_is_refused(case: Path) -> None:
    with pytest.raises(EvidenceError) as caught:
        verify(case, roots=TrustAnchors.of(authorities()[0]))
    assert caught.value.reason == REFUSED[case.name]


@pytest.mark.parametrize("case", [case for case in CASES if case.name in GENUINE], ids=lambda case: case.name)
def test_an_empty_trust_store_trusts_nobody(case: Path) -> None:
    with pytest.raises(EvidenceError) as caught:
        verify(case, roots=TrustAnchors.of([]))
    assert caught.value.reason == "ek_chain_untrusted"


def test_an_intermediate_authority_can_be_trusted_as_a_root() -> None:
    """So that a maker's older root, signed with SHA-1 or sold since, need not be trusted with everything."""
    case = VECTORS / "ek_certs" / "stm-rsa-ca05"
    raw = (case / "cert.der").read_bytes()
    issuing = x509.load_der_x509_certificate(chain_of(raw)[0])
    verified = verify_endorsement(raw, [], roots=[issuing], ek=None, now=NOW)
    assert verified.manufacturer == "STM"


def test_a_name_alone_is_no_issuer() -> None:
    """adversarial/ak-chain-wrong-ca-cmc, and the right authority as its twin."""
    folder = VECTORS / "adversarial" / "ak-chain-wrong-ca-cmc"
    leaf, right, wrong = (
        read_certificate(ders(folder / name)[0]) for name in ("ak_cert.pem", "right_ca.pem", "wrong_ca.pem")
    )
    path = find_path(leaf, [], anchors=TrustAnchors.of([right]), now=NOW)
    assert [one.sha256 for one in path] == [leaf.sha256, right.sha256]
    with pytest.raises(EvidenceError) as caught:
        find_path(leaf, [wrong], anchors=TrustAnchors.of([wrong]), now=NOW)
    assert caught.value.reason == "ek_chain_untrusted"
    assert expected(folder)["expected"]["chain_valid"] is False
