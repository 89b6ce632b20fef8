"""Is every certificate refused that is not an EK's, and its maker read as it stands there?"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from asn1crypto import x509 as der
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tpm.verify.authorities import (
    MAKER,
    NOW,
    Authority,
    Form,
    constraints,
    directory_name,
    ek_form,
    name,
    purposes,
    signed_anew,
    unknown,
    usage,
)
from tpm.errors import EvidenceError
from tpm.verify.endorsement import VerifiedEndorsement, verify_endorsement

EK, PLATFORM, AK = "2.23.133.8.1", "2.23.133.8.2", "2.23.133.8.3"
TLS_SERVER, TLS_CLIENT, ANY = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"
MANUFACTURER, MODEL, VERSION = MAKER
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()
ROOT = Authority.root()


def verify(form: Form) -> VerifiedEndorsement:
    return verify_endorsement(ROOT.endorse(form), [], roots=[ROOT.certificate], ek=None, now=NOW)


def refused(form: Form) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify(form)
    return caught.value.reason


@pytest.mark.parametrize("key", [None, P256], ids=["RSA", "P-256"])
def test_an_ek_certificate_is_one(key: ec.EllipticCurvePublicKey | None) -> None:
    assert verify(ek_form(key)).manufacturer == "IFX"


@pytest.mark.parametrize(
    ("stated", "holds"),
    [
        ([EK], True),
        (
            [EK, "1.3.6.1.4.1.311.122.2"],
            True,
        ),  # Microsoft's own, beside the EK purpose in its makers' certificates
        ([AK], False),
        ([PLATFORM], False),
        ([TLS_SERVER, TLS_CLIENT], False),
        ([ANY], False),
        (["1.3.6.1.4.1.311.122.2"], False),
        ([EK, AK], False),
        ([EK, TLS_SERVER], False),
        ([EK, PLATFORM], False),
        ([EK, ANY], False),
        (["2.23.133.8.10"], False),
    ],
)
def test_ct_5_the_purpose_is_to_be_an_ek_certificate(stated: list[str], holds: bool) -> None:
    form = ek_form().having(*purposes(*stated))
    if holds:
        assert verify(form).manufacturer == "IFX"
    else:
        assert refused(form) == "ek_cert_profile"


def test_ct_5_a_certificate_without_a_purpose_may_be_an_eks() -> None:
    assert verify(ek_form().without(x509.ExtendedKeyUsage)).manufacturer == "IFX"


def test_ct_5_a_tls_certificate_of_the_same_authority_is_no_ek_certificate() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("tpm.example.org")])
    server = ek_form().having(names, False)
    assert refused(server.having(*purposes(TLS_SERVER))) == "ek_cert_profile"
    assert refused(server.without(x509.ExtendedKeyUsage)) == "ek_cert_profile", "its names give no maker"


@pytest.mark.parametrize(
    ("key", "granted", "holds"),
    [
        (None, ["key_encipherment"], True),
        (None, ["key_encipherment", "digital_signature"], True),
        (None, ["digital_signature"], False),
        (None, ["key_agreement"], False),
        (None, ["data_encipherment"], False),
        (None, ["key_encipherment", "key_cert_sign"], False),
        (P256, ["key_agreement"], True),
        (P256, ["key_encipherment"], True),
        (P256, ["digital_signature"], False),
        (P256, ["crl_sign"], False),
    ],
)
def test_an_ek_may_be_encrypted_to(
    key: ec.EllipticCurvePublicKey | None, granted: list[str], holds: bool
) -> None:
    form = ek_form(key).having(*usage(*granted))
    if holds:
        assert verify(form).manufacturer == "IFX"
    else:
        assert refused(form) == "ek_cert_profile"


def test_without_a_key_usage_nothing_is_forbidden() -> None:
    assert verify(ek_form().without(x509.KeyUsage)).manufacturer == "IFX"


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.having(*constraints(True)),
        lambda form: form.having(*unknown(critical=True)),
        lambda form: form.having(x509.PolicyConstraints(0, None), True),
    ],
    ids=["an authority", "unknown critical", "critical policy constraints"],
)
def test_what_an_ek_certificate_must_not_have(change: Callable[[Form], Form]) -> None:
    assert refused(change(ek_form())) == "ek_cert_profile"


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.without(x509.BasicConstraints),
        lambda form: form.having(*unknown(critical=False)),
        lambda form: form.having(directory_name(*MAKER)[0], False),
    ],
    ids=["no constraints", "unknown", "names not critical"],
)
def test_what_genuine_ek_certificates_have(change: Callable[[Form], Form]) -> None:
    assert verify(change(ek_form())).manufacturer == "IFX"


def test_an_ek_certificate_is_of_version_3() -> None:
    def to_version_1(certificate: der.Certificate) -> None:
        certificate["tbs_certificate"]["version"] = "v1"
        del certificate["tbs_certificate"]["extensions"]

    old = signed_anew(ROOT.endorse(replace(ek_form(), subject=name(*MAKER))), ROOT.key, to_version_1)
    with pytest.raises(EvidenceError) as caught:
        verify_endorsement(old, [], roots=[ROOT.certificate], ek=None, now=NOW)
    assert caught.value.reason == "ek_cert_profile"


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ("id:49465800", "IFX"),
        ("id:4E544300", "NTC"),
        ("id:53544D20", "STM"),
        ("id:53544d20", "STM"),
        ("id:414D4400", "AMD"),
        ("id:474F4F47", "GOOG"),
        ("id:00001014", "id:00001014"),
        ("id:fffff1d0", "id:FFFFF1D0"),
        ("id:00000000", "id:00000000"),
        ("id:49000046", "id:49000046"),
    ],
)
def test_a_manufacturer_is_its_ascii_id_without_padding_or_hex(stated: str, read: str) -> None:
    form = ek_form().having(*directory_name((MANUFACTURER[0], stated), MODEL, VERSION))
    assert verify(form).manufacturer == read


@pytest.mark.parametrize(
    "stated",
    ["49465800", "id:4946580", "id:494658000", "id:4946 580", "id:49 46 58 00", "id:xyz", "ID:49465800", "x"],
)
def test_a_manufacturer_that_is_no_id_is_refused(stated: str) -> None:
    form = ek_form().having(*directory_name((MANUFACTURER[0], stated), MODEL, VERSION))
    assert refused(form) == "ek_cert_profile"


def test_the_attributes_may_stand_in_the_subject() -> None:
    form = replace(ek_form().without(x509.SubjectAlternativeName), subject=name(*MAKER))
    verified = verify(form)
    assert (verified.manufacturer, verified.model, verified.version) == ("IFX", MODEL[1], VERSION[1])


def test_the_attributes_may_share_one_relative_name() -> None:
    shared = x509.RelativeDistinguishedName(x509.NameAttribute(x509.ObjectIdentifier(o), v) for o, v in MAKER)
    names = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name([shared]))])
    assert verify(ek_form().having(names, True)).version == VERSION[1]


def test_a_certificate_without_alternative_names_may_be_silent() -> None:
    """Google's are; only then."""
    verified = verify(ek_form().without(x509.SubjectAlternativeName))
    assert (verified.manufacturer, verified.model, verified.version) == (None, None, None)


@pytest.mark.parametrize("missing", MAKER)
def test_alternative_names_give_all_three_attributes(missing: tuple[str, str]) -> None:
    rest = [pair for pair in MAKER if pair != missing]
    assert refused(ek_form().having(*directory_name(*rest))) == "ek_cert_profile"
    without = replace(ek_form().without(x509.SubjectAlternativeName), subject=name(*rest))
    assert refused(without) == "ek_cert_profile"


@pytest.mark.parametrize("twice", MAKER)
def test_a_certificate_that_contradicts_itself_is_refused(twice: tuple[str, str]) -> None:
    other = (twice[0], "id:414D4400")
    assert refused(ek_form().having(*directory_name(*MAKER, other))) == "ek_cert_profile"
    assert refused(ek_form(subject=name(other))) == "ek_cert_profile"
    assert verify(ek_form(subject=name(twice))).manufacturer == "IFX", "the same twice is no contradiction"


@pytest.mark.parametrize("model", ["SLB\n9670", "\x1b[31m", "x" * 129, "\x00"])
def test_what_cannot_be_printed_is_no_model(model: str) -> None:
    form = ek_form().having(*directory_name(MANUFACTURER, (MODEL[0], model), VERSION))
    assert refused(form) == "ek_cert_profile"
