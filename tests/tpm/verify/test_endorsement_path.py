"""Is every way to a root refused that is not one, and found that is?"""

import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType

import pytest
from asn1crypto import x509 as der
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.tpm.verify.authorities import (
    DAY,
    EK_PURPOSE,
    NOW,
    Authority,
    Form,
    authority_form,
    common_name,
    constraints,
    ek_form,
    purposes,
    sign,
    signed_anew,
    unknown,
    usage,
)
from tpm.errors import EvidenceError
from tpm.verify.certificate import is_signed_by
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.endorsement import VerifiedEndorsement, contradicts, verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors

END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
RSA = rsa.generate_private_key(65537, 2048)


def verify(leaf: bytes, *chain: bytes, root: Authority, now: datetime = NOW) -> VerifiedEndorsement:
    return verify_endorsement(leaf, chain, roots=[root.certificate], ek=None, now=now)


def reason(leaf: bytes, *chain: bytes, root: Authority, now: datetime = NOW) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify(leaf, *chain, root=root, now=now)
    return caught.value.reason


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority.root()


def test_a_root_and_an_intermediate_vouch(root: Authority) -> None:
    maker = root.authority("Maker CA")
    assert verify(root.endorse(), root=root).root_sha256 == read_certificate(root.der).sha256
    verified = verify(maker.endorse(), maker.der, root=root)
    assert (verified.manufacturer, verified.model, verified.version) == ("IFX", "SLB 9670 TPM2.0", "id:073f")


def test_ct_1_an_authority_with_the_makers_names_is_not_the_maker(root: Authority) -> None:
    maker = root.authority("Maker CA")
    false_root = Authority.root()
    false_maker = false_root.authority("Maker CA")
    assert false_root.certificate.subject == root.certificate.subject
    for chain in ([false_maker.der], [false_maker.der, false_root.der], [false_maker.der, maker.der], []):
        assert reason(false_maker.endorse(), *chain, root=root) == "ek_chain_untrusted"
    assert reason(false_root.endorse(), root=root) == "ek_chain_untrusted"
    assert reason(root.sign(ek_form()).public_bytes(Encoding.DER), root=false_root) == "ek_chain_untrusted"
    assert verify(maker.endorse(), false_maker.der, maker.der, root=root)
    assert verify(false_maker.endorse(), false_maker.der, root=false_root)


def test_ct_1_without_identifiers_a_name_still_proves_nothing(root: Authority) -> None:
    false_root = Authority.root()
    leaf = false_root.endorse(replace(ek_form(), names_its_issuer_key=False))
    assert reason(leaf, root=root) == "ek_chain_untrusted"
    assert verify(leaf, root=false_root)


def test_the_makers_key_under_another_name_is_not_the_issuer(root: Authority) -> None:
    maker = root.authority("Maker CA")
    renamed = root.authority("Another CA", maker.key)
    assert reason(maker.endorse(), renamed.der, root=root) == "ek_chain_untrusted"
    assert verify(renamed.endorse(), renamed.der, root=root)


def test_a_wrong_signature_by_the_very_key_that_is_named_contradicts(root: Authority) -> None:
    leaf = root.endorse()
    parsed = der.Certificate.load(leaf)
    signature = bytearray(parsed["signature_value"].native)
    signature[-1] ^= 1
    parsed["signature_value"] = bytes(signature)
    assert reason(parsed.dump(force=True), root=root) == "ek_signature"
    assert verify(leaf, root=root)


def test_a_changed_byte_under_the_signature_is_refused_everywhere(root: Authority) -> None:
    leaf = root.endorse()
    body = der.Certificate.load(leaf)["tbs_certificate"].dump()
    start = leaf.index(body)
    for offset in range(start, start + len(body)):
        damaged = bytearray(leaf)
        damaged[offset] ^= 0x01
        with pytest.raises(EvidenceError):
            verify(bytes(damaged), root=root)
    assert verify(leaf, root=root)


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.having(*constraints(False)),
        lambda form: form.without(x509.BasicConstraints),
        lambda form: form.having(*usage("digital_signature", "crl_sign")),
        lambda form: form.having(*purposes("2.23.133.8.3")),
        lambda form: form.having(*unknown(critical=True)),
        lambda form: form.having(x509.NameConstraints([x509.DirectoryName(common_name("x"))], None), True),
        lambda form: form.having(x509.PolicyConstraints(0, None), True),
    ],
    ids=[
        "not a CA",
        "no constraints",
        "must not sign",
        "other purpose",
        "unknown critical",
        "names",
        "policies",
    ],
)
def test_an_issuer_that_must_not_issue_is_refused(root: Authority, change: Callable[[Form], Form]) -> None:
    unfit = root.changed(change, "Maker CA")
    assert reason(unfit.endorse(), unfit.der, root=root) == "ek_issuer_profile"
    assert reason(unfit.endorse(), root=unfit) == "ek_issuer_profile", (
        "being trusted does not make it an authority"
    )
    fit = root.authority("Maker CA")
    assert verify(fit.endorse(), fit.der, root=root)


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.without(x509.KeyUsage),
        lambda form: form.having(*purposes(EK_PURPOSE, "1.3.6.1.4.1.311.122.2")),
        lambda form: form.having(x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.5.29.37.0")]), True),
        lambda form: form.having(*unknown(critical=False)),
        lambda form: form.having(
            x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)]),
            True,
        ),
    ],
    ids=["no usage", "EK purpose", "any purpose", "unknown", "critical policies"],
)
def test_what_genuine_issuers_have_is_taken(root: Authority, change: Callable[[Form], Form]) -> None:
    maker = root.changed(change, "Maker CA")
    assert verify(maker.endorse(), maker.der, root=root)


def test_a_certificate_of_version_1_is_no_authority() -> None:
    old = Authority.root("Old Root")

    def to_version_1(certificate: der.Certificate) -> None:
        certificate["tbs_certificate"]["version"] = "v1"
        del certificate["tbs_certificate"]["extensions"]

    version_1 = x509.load_der_x509_certificate(signed_anew(old.der, old.key, to_version_1))
    assert reason(old.endorse(), root=Authority(old.key, version_1)) == "ek_issuer_profile"
    assert verify(old.endorse(), root=old)


@pytest.mark.parametrize(
    ("allowed", "below", "holds"), [(0, 0, True), (0, 1, False), (1, 1, True), (1, 2, False)]
)
def test_a_root_bounds_the_authorities_below_it(allowed: int, below: int, holds: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = authority_form("Bounded", key.public_key()).having(*constraints(True, allowed))
    lowest = root = Authority(key, sign(form, key, form.subject))
    chain = []
    for number in range(below):
        lowest = lowest.authority(f"CA {number}")
        chain.append(lowest.der)
    if holds:
        assert verify(lowest.endorse(), *chain, root=root)
    else:
        assert reason(lowest.endorse(), *chain, root=root) == "ek_issuer_profile"


def test_extensions_in_a_certificate_of_an_older_version_do_not_count(root: Authority) -> None:
    maker = root.authority("Maker CA")

    def to_version_1(certificate: der.Certificate) -> None:
        certificate["tbs_certificate"]["version"] = "v1"

    old = signed_anew(maker.der, root.key, to_version_1)
    assert reason(maker.endorse(), old, root=root) == "ek_issuer_profile"
    assert (
        reason(signed_anew(maker.endorse(), maker.key, to_version_1), maker.der, root=root)
        == "ek_cert_profile"
    )
    assert verify(maker.endorse(), maker.der, root=root)


def test_an_intermediate_bounds_the_authorities_below_it(root: Authority) -> None:
    issuing = root.changed(lambda form: form.having(*constraints(True, 0)), "Issuing CA")
    beyond = issuing.authority("Beyond")
    assert verify(issuing.endorse(), issuing.der, root=root)
    assert reason(beyond.endorse(), beyond.der, issuing.der, root=root) == "ek_issuer_profile"


SPANS = {
    "expired": {"not_before": NOW - 20 * DAY, "not_after": NOW - DAY},
    "not yet valid": {"not_before": NOW + DAY, "not_after": NOW + 20 * DAY},
}


@pytest.mark.parametrize("span", SPANS)
def test_ct_4_a_leaf_out_of_its_time_is_refused(root: Authority, span: str) -> None:
    expected = {"expired": "ek_expired", "not yet valid": "ek_not_yet_valid"}[span]
    assert reason(root.endorse(ek_form(**SPANS[span])), root=root) == expected
    assert verify(root.endorse(), root=root)


@pytest.mark.parametrize("span", SPANS)
def test_ct_4_an_intermediate_out_of_its_time_is_refused(root: Authority, span: str) -> None:
    maker = root.authority("Maker CA", **SPANS[span])
    assert reason(maker.endorse(), maker.der, root=root) == "ek_issuer_expired"
    renewed = Authority(maker.key, root.sign(authority_form("Maker CA", maker.key.public_key())))
    assert verify(maker.endorse(), maker.der, renewed.der, root=root), "the same key, certified anew"


@pytest.mark.parametrize("span", SPANS)
def test_ct_4_a_root_out_of_its_time_is_refused(span: str) -> None:
    old = Authority.root(**SPANS[span])
    assert reason(old.endorse(), root=old) == "ek_issuer_expired"
    assert verify(old.endorse(), root=old, now=SPANS[span]["not_before"] + DAY / 2)


def test_ct_4_the_year_9999_is_no_reason_to_refuse() -> None:
    eternal = Authority.root(not_after=END_OF_TIME)
    maker = eternal.authority("Maker CA", not_after=END_OF_TIME)
    verified = verify(maker.endorse(ek_form(not_after=END_OF_TIME)), maker.der, root=eternal)
    assert verified.not_after == END_OF_TIME
    assert verify(maker.endorse(ek_form(not_after=END_OF_TIME)), maker.der, root=eternal, now=END_OF_TIME)


def test_ct_4_the_first_and_the_last_second_are_included(root: Authority) -> None:
    leaf = root.endorse(ek_form(not_before=NOW - DAY, not_after=NOW + DAY))
    second = DAY / 86400
    assert verify(leaf, root=root, now=NOW - DAY)
    assert verify(leaf, root=root, now=NOW + DAY)
    assert reason(leaf, root=root, now=NOW - DAY - second) == "ek_not_yet_valid"
    assert reason(leaf, root=root, now=NOW + DAY + second) == "ek_expired"


def test_the_whole_path_bounds_how_long_it_holds() -> None:
    root = Authority.root(not_after=NOW + 30 * DAY)
    maker = root.authority("Maker CA", not_before=NOW - DAY)
    verified = verify(maker.endorse(), maker.der, root=root)
    assert (verified.not_before, verified.not_after) == (NOW - DAY, NOW + 30 * DAY)


def test_a_link_signed_with_sha_1_is_refused() -> None:
    maker = Authority(RSA, Authority.root("Maker CA", RSA).certificate)

    def signed_with(leaf: bytes, hash_: hashes.HashAlgorithm, name: str) -> bytes:
        parsed = der.Certificate.load(leaf)
        for place in (parsed["tbs_certificate"]["signature"], parsed["signature_algorithm"]):
            place["algorithm"] = name
        parsed["signature_value"] = RSA.sign(
            parsed["tbs_certificate"].dump(force=True), padding.PKCS1v15(), hash_
        )
        return bytes(parsed.dump(force=True))

    leaf = maker.endorse()
    assert reason(signed_with(leaf, hashes.SHA1(), "sha1_rsa"), root=maker) == "ek_weak_signature"
    assert verify(signed_with(leaf, hashes.SHA384(), "sha384_rsa"), root=maker)
    # On an intermediate as well; on a root the operator's word counts, not its signature.
    weak = x509.load_der_x509_certificate(
        signed_with(maker.authority("CA", RSA).der, hashes.SHA1(), "sha1_rsa")
    )
    below = Authority(RSA, weak)
    assert reason(below.endorse(), below.der, root=maker) == "ek_weak_signature"
    assert verify(below.endorse(), root=below)


def test_two_signature_algorithms_in_one_certificate_are_refused(root: Authority) -> None:
    def differ(certificate: der.Certificate) -> None:
        certificate["tbs_certificate"]["signature"]["algorithm"] = "sha384_ecdsa"

    assert reason(signed_anew(root.endorse(), root.key, differ), root=root) == "ek_certificate_unreadable"
    assert verify(signed_anew(root.endorse(), root.key, lambda _: None), root=root)


def test_an_authority_with_another_kind_of_key_is_refused(root: Authority) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    other = root.sign(authority_form("Ed25519 CA", key.public_key())).public_bytes(Encoding.DER)
    assert reason(root.endorse(), other, root=root) == "ek_certificate_unreadable"
    assert verify(root.endorse(), root.der, root=root)


def test_ct_7_a_thousand_intermediates_are_not_read(root: Authority) -> None:
    maker = root.authority("Maker CA")
    assert reason(maker.endorse(), *[maker.der] * 1000, root=root) == "ek_chain_too_long"
    assert reason(maker.endorse(), *[maker.der] * 8, root=root) == "ek_chain_too_long"
    assert verify(maker.endorse(), *[maker.der] * 7, root=root)


def test_ct_7_eight_certificates_with_the_root_are_the_longest_path(root: Authority) -> None:
    lowest, chain = root, []
    for number in range(7):
        lowest = lowest.authority(f"CA {number}")
        chain.append(lowest.der)
        if number == 5:
            assert verify(lowest.endorse(), *chain, root=root)
    assert reason(lowest.endorse(), *chain, root=root) == "ek_chain_untrusted"


def test_ct_7_crossed_signatures_end_and_each_pair_is_tried_once(root: Authority) -> None:
    """Seven authorities of one name and one key, each of which could have signed each other: no way out."""
    shared = Authority.root("Loop")
    loop = [shared.authority("Loop", shared.key).der for _ in range(7)]
    leaf = shared.endorse()
    tried = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal tried
        tried += event == "call" and frame.f_code is is_signed_by.__code__

    sys.setprofile(count)
    try:
        assert reason(leaf, *loop, root=root) == "ek_chain_untrusted"
    finally:
        sys.setprofile(None)
    assert 7 <= tried <= 8 * 7
    assert verify(leaf, *loop, root=shared)


def test_ct_7_a_crossed_chain_leads_out_where_there_is_a_way(root: Authority) -> None:
    """Two makers certify each other; one of them is certified by the root too."""
    one, other = Authority.root("One"), Authority.root("Other")
    crossed = [
        one.sign(authority_form("Other", other.key.public_key())).public_bytes(Encoding.DER),
        other.sign(authority_form("One", one.key.public_key())).public_bytes(Encoding.DER),
    ]
    way_out = root.sign(authority_form("Other", other.key.public_key())).public_bytes(Encoding.DER)
    assert reason(one.endorse(), *crossed, root=root) == "ek_chain_untrusted"
    for chain in ([*crossed, way_out], [way_out, *crossed]):
        assert verify(one.endorse(), *chain, root=root)


class Canary(http.server.BaseHTTPRequestHandler):
    hits: list[str]

    def do_GET(self) -> None:
        self.hits.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def canary() -> Iterator[http.server.HTTPServer]:
    Canary.hits = []
    with http.server.HTTPServer(("127.0.0.1", 0), Canary) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_ct_7_nothing_is_fetched(root: Authority, canary: http.server.HTTPServer) -> None:
    url = x509.UniformResourceIdentifier(f"http://127.0.0.1:{canary.server_port}/ca.crt")
    points = x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)])
    access = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.ObjectIdentifier(f"1.3.6.1.5.5.7.48.{n}"), url) for n in (1, 2)]
    )
    form = ek_form().having(access, False).having(points, False)
    maker = root.changed(lambda form: form.having(access, False).having(points, False), "Maker CA")
    assert verify(maker.endorse(form), maker.der, root=root)
    assert reason(maker.endorse(form), root=root) == "ek_chain_untrusted"
    assert Canary.hits == []


def test_the_order_of_the_chain_and_a_root_in_it_do_not_matter(root: Authority) -> None:
    upper = root.authority("Upper")
    lower = upper.authority("Lower")
    for chain in ([lower.der, upper.der], [upper.der, lower.der], [root.der, upper.der, lower.der]):
        assert verify(lower.endorse(), *chain, root=root)
    assert reason(lower.endorse(), lower.der, root=root) == "ek_chain_untrusted"


def test_anchors_are_kept_once_and_know_whether_they_changed() -> None:
    one, other = Authority.root(), Authority.root()
    both = TrustAnchors.of([one.certificate, other.certificate])
    assert (
        both.fingerprint == TrustAnchors.of([other.certificate, one.certificate, one.certificate]).fingerprint
    )
    assert both.fingerprint != TrustAnchors.of([one.certificate]).fingerprint
    assert len(TrustAnchors.of([one.certificate, one.certificate]).certificates) == 1
    for authority in (one, other):
        assert verify_endorsement(authority.endorse(), [], roots=both, ek=None, now=NOW)


def test_only_an_unknown_maker_is_no_contradiction(root: Authority) -> None:
    with pytest.raises(EvidenceError) as caught:
        verify(Authority.root().endorse(), root=root)
    assert not contradicts(caught.value)
    with pytest.raises(EvidenceError) as caught:
        verify(root.endorse(ek_form(not_after=NOW - DAY)), root=root)
    assert contradicts(caught.value)
