"""Are attestation keys' certificates believed for what they are, and bound to the machine that sends them?"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.tpm import forge
from tests.tpm.machine import Machine, machine
from tests.tpm.vectors import Vector, vectors
from tests.tpm.verify.authorities import (
    DAY,
    MAKER,
    NOW,
    Authority,
    Form,
    constraints,
    name,
    purposes,
    unknown,
    usage,
)
from tests.tpm.verify.test_endorsement_vectors import CASES, GENUINE, authorities, chain_of, expected
from tpm.errors import EvidenceError, StructureError
from tpm.structures.algorithms import SHA256
from tpm.structures.attest import parse_certification
from tpm.structures.public import PublicArea, parse_public
from tpm.structures.signature import Signature
from tpm.verify.attestation_certificate import (
    IdentityEvidence,
    VerifiedIdentity,
    verify_ak_certificate,
    verify_idevid_iak,
)
from tpm.verify.attestation_profile import (
    AK_PURPOSE,
    ATTESTATION_PURPOSES,
    VERIFIED_FIXED,
    VERIFIED_RESIDENT,
    VERIFIED_RESTRICTED,
    check_signing_profile,
)
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_fallback import read_leniently
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.endorsement import verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors, find_path
from tpm.verify.endorsement_profile import EK_PURPOSE, stated_maker
from tpm.verify.keys import bare_attestation_key
from tpm.verify.loose import read_loose_signature
from tpm.verify.statement import verify_statement

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

ROOT = Authority.root("Maker Root")
ROOTS = TrustAnchors.of([ROOT.certificate])
CLOUD = ("gce-cos85-ak", "gce-pca-rsa-sign", "gce-uca-rsa-sign-ak")
WEBAUTHN = vectors("acme_device_attest/webauthn-*")
NONCE = hashlib.sha256(b"what the machine is to certify for us").digest()
HARDWARE = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(EvidenceError) as caught:
        call()
    return caught.value.reason


def collected() -> TrustAnchors:
    return TrustAnchors.of(authorities()[0])


def area_of(certificate: Certificate) -> PublicArea:
    """The public area that an attestation key with the certificate's key would have."""
    return bare_attestation_key(certificate.key, "rsassa", SHA256).public


# --- genuine certificates --------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case.name in CLOUD], ids=lambda case: case.name)
def test_a_cloud_machines_certificate_vouches_for_its_attestation_key(case: Path) -> None:
    raw = (case / "cert.der").read_bytes()
    read = read_certificate(raw)
    now = read.not_before + DAY
    found = verify_ak_certificate(raw, chain_of(raw), roots=collected(), ak=area_of(read), now=now)
    assert expected(case)["expected"]["chain_to_collected_roots"]
    assert found.certificate_sha256 == read.sha256
    assert (found.maker.manufacturer, found.serial) == (stated_maker(read).manufacturer, None)
    # It is no EK certificate all the same (CT-5).
    assert (
        reason(lambda: verify_endorsement(raw, chain_of(raw), roots=collected(), ek=None, now=now))
        == "ek_cert_profile"
    )


@pytest.mark.parametrize("vector", vectors("attestations/gce-cos85-*"), ids=str)
def test_a_published_attestation_key_is_the_one_of_its_certificate(vector: Vector) -> None:
    raw = vector.read("ak_cert.der")
    now = read_certificate(raw).not_before + DAY
    ak = parse_public(vector.read("ak.tpmt"))
    assert verify_ak_certificate(raw, chain_of(raw), roots=collected(), ak=ak, now=now)
    other = machine("rsa2048", "rsassa").ak.public
    given = {"roots": collected(), "now": now}
    assert reason(lambda: verify_ak_certificate(raw, chain_of(raw), ak=other, **given)) == "ak_key_mismatch"


@pytest.mark.parametrize("case", [case for case in CASES if case.name in GENUINE], ids=lambda case: case.name)
def test_ct_5_an_ek_certificate_is_no_attestation_keys(case: Path) -> None:
    raw = (case / "cert.der").read_bytes()
    read = read_certificate(raw)
    given = {"roots": collected(), "ak": area_of(read), "now": read.not_before + DAY}
    assert reason(lambda: verify_ak_certificate(raw, chain_of(raw), **given)) == "ak_cert_profile"


@pytest.mark.parametrize("vector", WEBAUTHN, ids=str)
def test_a_windows_machines_certificate_is_that_of_an_attestation_key(vector: Vector) -> None:
    leaf = read_certificate(vector.read("x5c_0.der"))
    check_signing_profile(leaf)
    assert stated_maker(leaf).manufacturer is not None
    if not vector.has("x5c_1.der"):
        return
    issuer = read_certificate(vector.read("x5c_1.der"))
    now = max(leaf.not_before, issuer.not_before) + DAY
    found = find_path(leaf, [], anchors=TrustAnchors.of([issuer]), now=now, purposes=ATTESTATION_PURPOSES)
    assert len(found) == 2
    # Its issuer is bound to attestation keys and vouches for no EK.
    assert (
        reason(lambda: find_path(leaf, [], anchors=TrustAnchors.of([issuer]), now=now)) == "ek_issuer_profile"
    )


@pytest.mark.parametrize("vector", [one for one in WEBAUTHN if "test-sha256" in str(one)], ids=str)
def test_a_windows_machines_statement_holds_under_its_certificate(vector: Vector) -> None:
    """WebAuthn, 8.3.1: extraData is the hash of what is attested; the certified Name is the new key's."""
    leaf = read_certificate(vector.read("x5c_0.der"))
    certification = parse_certification(vector.read("cert_info.bin"))
    scheme = "ecdsa" if isinstance(leaf.key, ec.EllipticCurvePublicKey) else "rsassa"
    ak = bare_attestation_key(leaf.key, scheme, SHA256)
    signature = plain_signature(vector.read("sig.bin"), scheme)
    attested = vector.read("auth_data.bin") + hashlib.sha256(vector.read("client_data.json")).digest()
    expected_extra = hashlib.sha256(attested).digest()
    verify_statement(
        certification, signature, ak=ak, expected_extra_data=expected_extra, expected_signers=None
    )
    assert certification.name == parse_public(vector.read("pub_area.tpmt")).name
    assert vector.about["expected"]["certify_name_matches_pub_area"] is True


def test_a_made_up_statement_that_no_tpm_writes_is_refused() -> None:
    """The specification's own example has a flag that is neither 0 nor 1."""
    (vector,) = vectors("acme_device_attest/webauthn-tpm-w3c-sha256-1")
    with pytest.raises(StructureError) as caught:
        parse_certification(vector.read("cert_info.bin"))
    assert caught.value.reason == "bad_boolean"


def plain_signature(raw: bytes, scheme: str) -> Signature:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return read_loose_signature(raw, key) if scheme == "ecdsa" else Signature(raw, "rsassa", SHA256, raw)


def test_the_genuine_certificates_are_counted() -> None:
    print(f"{len(CLOUD)} cloud machines' AK certificates, {len(WEBAUTHN)} of Windows machines")
    assert len(WEBAUTHN) == 10


# --- the profile -----------------------------------------------------------------------------------


def policies(*oids: str) -> tuple[x509.ExtensionType, bool]:
    found = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in oids]
    return x509.CertificatePolicies(found), False


def alternative(serial: bytes | None, hardware: str = "2.23.133.1.2") -> tuple[x509.ExtensionType, bool]:
    names: list[x509.GeneralName] = [x509.DirectoryName(name(*MAKER))]
    if serial is not None:
        kind = x509.ObjectIdentifier(hardware)
        encoded = kind.dotted_string.split(".")
        first, *rest = [int(encoded[0]) * 40 + int(encoded[1]), *map(int, encoded[2:])]
        body = b"".join(base128(arc) for arc in (first, *rest))
        content = b"\x06" + bytes([len(body)]) + body + b"\x04" + bytes([len(serial)]) + serial
        names.append(x509.OtherName(HARDWARE, b"\x30" + bytes([len(content)]) + content))
    return x509.SubjectAlternativeName(names), True


def base128(number: int) -> bytes:
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.append(number & 0x7F | 0x80)
    return bytes(reversed(octets))


def ak_form(key: Any, *, serial: bytes | None = None) -> Form:
    extensions = (
        alternative(serial),
        constraints(False),
        usage("digital_signature"),
        purposes(AK_PURPOSE),
        policies(VERIFIED_RESIDENT, VERIFIED_FIXED, VERIFIED_RESTRICTED),
    )
    return Form(x509.Name([]), key, extensions)


TPM = machine()
FORM = ak_form(TPM.key.public_key())
UNFIT = {
    "another purpose": FORM.having(*purposes("1.3.6.1.5.5.7.3.2")),
    "a purpose beside": FORM.having(*purposes(AK_PURPOSE, "1.3.6.1.5.5.7.3.2")),
    "the EK's purpose and encipherment": FORM.having(*purposes(EK_PURPOSE)).having(
        *usage("digital_signature", "key_encipherment")
    ),
    "no purpose and no key usage": FORM.without(x509.ExtendedKeyUsage).without(x509.KeyUsage),
    "a key that encrypts": FORM.having(*usage("key_agreement")),
    "a key that signs certificates": FORM.having(*usage("digital_signature", "key_cert_sign")),
    "an authority": FORM.having(*constraints(True)),
    "not verified as restricted": FORM.having(*policies(VERIFIED_RESIDENT, VERIFIED_FIXED)),
    "an unknown critical extension": FORM.having(*unknown(critical=True)),
}


def verify(form: Form, *, ak: PublicArea = TPM.ak.public, roots: TrustAnchors = ROOTS) -> object:
    return verify_ak_certificate(ROOT.endorse(form), [], roots=roots, ak=ak, now=NOW)


@pytest.mark.parametrize("form", UNFIT.values(), ids=UNFIT)
def test_ct_5_a_certificate_of_another_kind_is_no_attestation_keys(form: Form) -> None:
    assert reason(lambda: verify(form)) == "ak_cert_profile"
    assert verify(FORM)


@pytest.mark.parametrize(
    "form",
    [
        FORM.without(x509.CertificatePolicies),
        FORM.having(*purposes(EK_PURPOSE)),
        FORM.without(x509.ExtendedKeyUsage),
        FORM.having(*purposes(AK_PURPOSE, "1.3.6.1.4.1.311.21.36")),
        FORM.having(*unknown(critical=False)),
    ],
)
def test_what_genuine_certificates_lack_or_add_is_let_pass(form: Form) -> None:
    assert verify(form)


def test_a_key_that_signs_anything_is_no_attestation_key() -> None:
    loose = parse_public(
        forge.public_area(TPM.key, attributes=forge.CREDENTIAL, scheme=forge.signing_scheme("ecdsa"))
    )
    assert reason(lambda: verify(FORM, ak=loose)) == "ak_attributes"


def test_ct_4_it_is_valid_between_its_dates_only_and_ct_1_under_its_makers_root_only() -> None:
    raw = ROOT.endorse(FORM)
    given = {"roots": ROOTS, "ak": TPM.ak.public}
    assert reason(lambda: verify_ak_certificate(raw, [], now=NOW + 1001 * DAY, **given)) == "ek_expired"
    assert reason(lambda: verify_ak_certificate(raw, [], now=NOW - 101 * DAY, **given)) == "ek_not_yet_valid"
    assert reason(lambda: verify(FORM, roots=TrustAnchors.of([]))) == "ek_chain_untrusted"
    clone = TrustAnchors.of([Authority.root("Maker Root").certificate])
    assert reason(lambda: verify(FORM, roots=clone)) in ("ek_chain_untrusted", "ek_signature")
    assert verify_ak_certificate(raw, [], now=NOW, **given)


# --- IAK and IDevID --------------------------------------------------------------------------------

SERIAL = b"IFX:0102030405060708"
IAK, STRANGER = machine(which=1), machine(which=2)
IDEVID_KEY, OTHER_KEY = forge.private_key("p256", 3), forge.private_key("p256", 4)
IDEVID_ATTRIBUTES = 0x000400F2


def idevid_area(key: Any = IDEVID_KEY, attributes: int = IDEVID_ATTRIBUTES) -> bytes:
    return forge.public_area(key, attributes=attributes, scheme=forge.signing_scheme("ecdsa"))


def idevid_certificate(serial: bytes | None = SERIAL, key: Any = IDEVID_KEY) -> bytes:
    form = ak_form(key.public_key(), serial=serial).without(x509.ExtendedKeyUsage)
    return ROOT.endorse(form.having(*policies(VERIFIED_RESIDENT, VERIFIED_FIXED)))


def evidence(signer: Machine = IAK, **claims: Any) -> IdentityEvidence:
    claimed = {"extra": NONCE} | claims
    return IdentityEvidence(
        iak_certificate=ROOT.endorse(ak_form(IAK.key.public_key(), serial=SERIAL)),
        idevid_certificate=idevid_certificate(),
        chain=(),
        iak=IAK.ak.public,
        idevid=parse_public(idevid_area()),
        ak=TPM.ak.public,
        idevid_certified=signer.certify(idevid_area(), **claimed),
        ak_certified=signer.certify(TPM.ak.public.raw, **claimed),
    )


GOOD = evidence()


def bind(given: IdentityEvidence, serial: bytes | None = SERIAL) -> VerifiedIdentity:
    return verify_idevid_iak(given, roots=ROOTS, expected_extra_data=NONCE, expected_serial=serial, now=NOW)


UNBOUND: dict[str, IdentityEvidence] = {
    "the AK is certified by another key": replace(GOOD, ak_certified=evidence(STRANGER).ak_certified),
    "the IDevID is certified by another key": replace(
        GOOD, idevid_certified=evidence(STRANGER).idevid_certified
    ),
    "another key than the AK is certified": replace(GOOD, ak_certified=GOOD.idevid_certified),
    "another key than the IDevID is certified": replace(GOOD, idevid_certified=GOOD.ak_certified),
    "the certification answers nothing": evidence(extra=b""),
    "the certification answers another request": evidence(extra=bytes(32)),
    "the IDevID is another machine's": replace(GOOD, idevid_certificate=idevid_certificate(b"IFX:other")),
    "the IDevID names no machine": replace(GOOD, idevid_certificate=idevid_certificate(None)),
    "the IAK names no machine": replace(GOOD, iak_certificate=ROOT.endorse(ak_form(IAK.key.public_key()))),
    "the number is no TPM's": replace(
        GOOD,
        iak_certificate=ROOT.endorse(
            ak_form(IAK.key.public_key()).having(*alternative(SERIAL, hardware="1.2.3"))
        ),
    ),
}


@pytest.mark.parametrize("given", UNBOUND.values(), ids=UNBOUND)
def test_ct_9_what_does_not_belong_together_is_not_bound(given: IdentityEvidence) -> None:
    assert reason(lambda: bind(given)) == "iak_binding"
    assert bind(GOOD).ak == TPM.ak


def test_ct_9_the_machine_is_the_one_in_the_devices_record() -> None:
    assert reason(lambda: bind(GOOD, b"IFX:recorded")) == "iak_binding"
    assert bind(GOOD).serial == SERIAL
    assert bind(GOOD, None).iak.serial == SERIAL


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (replace(GOOD, iak=STRANGER.ak.public), "ak_key_mismatch"),
        (replace(GOOD, idevid=parse_public(idevid_area(OTHER_KEY))), "idevid_key_mismatch"),
        (replace(GOOD, idevid=parse_public(idevid_area(attributes=forge.AK))), "idevid_attributes"),
        (replace(GOOD, iak=parse_public(idevid_area(IAK.key))), "ak_attributes"),
        (replace(GOOD, ak=parse_public(idevid_area(TPM.key))), "ak_attributes"),
        (replace(GOOD, idevid_certificate=GOOD.iak_certificate[:-1]), "ek_certificate_unreadable"),
        (
            replace(
                GOOD,
                iak_certificate=Authority.root("Other").endorse(ak_form(IAK.key.public_key(), serial=SERIAL)),
            ),
            "ek_chain_untrusted",
        ),
    ],
)
def test_ct_9_each_part_is_sound_by_itself(given: IdentityEvidence, why: str) -> None:
    assert reason(lambda: bind(given)) == why


def test_a_serial_number_is_read_by_both_readers_alike() -> None:
    raw = ROOT.sign(ak_form(TPM.key.public_key(), serial=SERIAL)).public_bytes(Encoding.DER)
    assert read_leniently(raw).other_names == read_certificate(raw).other_names != ()
