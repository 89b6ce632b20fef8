"""CT: for which certificates of endorsement keys does a service believe that a maker vouches?"""

import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.attester import (
    Machine,
    TestMaker,
    TpmKey,
    b64,
    b64url,
    enrollment_body,
    jwk_of,
    new_key,
    parent_key,
    signing_key,
    sized,
)
from tests.deployment import Deployment, credential, policy_for
from tests.tpm.verify.authorities import (
    EK_PURPOSE,
    MAKER,
    Authority,
    Form,
    authority_form,
    common_name,
    constraints,
    directory_name,
    ek_form,
    purposes,
    rsa_key,
    unknown,
    usage,
)
from tests.tpm.verify.test_endorsement_strength import roca_modulus

ENROLL = "/v1/enrollments"
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(microsecond=0)
SPAN = {"not_before": TODAY - DAY, "not_after": TODAY + 1000 * DAY}
PAST = {"not_before": TODAY - 30 * DAY, "not_after": TODAY - DAY}
FUTURE = {"not_before": TODAY + DAY, "not_after": TODAY + 30 * DAY}
UNTRUSTED, PROFILE = "ek_chain_untrusted", "ek_cert_profile"

ROOT = Authority.root("Another Maker Root", **SPAN)
OLD_ROOT = Authority.root("Old Maker Root", **PAST)
COMING_ROOT = Authority.root("Coming Maker Root", **FUTURE)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A service that trusts three roots, of which one is over and one has not begun."""
    roots = [root.der for root in (ROOT, OLD_ROOT, COMING_ROOT)]
    directory: Path = tmp_path_factory.mktemp("makers") / "service"
    made = Deployment.create(directory, settings={"audit_unproven": "0"}, roots=roots)
    made.apply(policy_for(Machine.create(None)))
    yield made
    assert made.audit_faults() == ()
    made.close()


def ek_of(machine: Machine, **changes: Any) -> Form:
    """An EK certificate for this machine's key, not yet signed."""
    return ek_form(machine.ek.public_key(), **(SPAN | changes))


def endorsed(machine: Machine, certificate: bytes, chain: Sequence[bytes] = ()) -> dict[str, Any]:
    """The body of an enrolment with these certificates."""
    told = [b64(one) for one in chain]
    return enrollment_body(machine, ek_certificate=b64(certificate), ek_chain=told)


def refused(service: Deployment, body: dict[str, Any], cause: str) -> None:
    service.problem(body, 403, "enrollment_refused", ENROLL, cause=cause)


def accepted(service: Deployment, machine: Machine, issuer: Authority = ROOT) -> None:
    """The healthy twin: a certificate as it should be."""
    service.expect(201, ENROLL, endorsed(machine, issuer.endorse(ek_of(machine))))


@pytest.fixture
def machine() -> Machine:
    return Machine.create(None)


# CT-1


def test_ct_1_an_authority_with_the_makers_names_is_not_the_maker(
    service: Deployment, machine: Machine
) -> None:
    false = Authority.root("Another Maker Root", **SPAN)
    below, honest = (one.authority("Maker CA", **SPAN) for one in (false, ROOT))
    refused(service, endorsed(machine, false.endorse(ek_of(machine))), UNTRUSTED)
    refused(service, endorsed(machine, false.endorse(ek_of(machine)), [false.der]), UNTRUSTED)
    refused(service, endorsed(machine, below.endorse(ek_of(machine)), [below.der, false.der]), UNTRUSTED)
    refused(service, endorsed(machine, below.endorse(ek_of(machine)), [honest.der]), UNTRUSTED)
    service.expect(201, ENROLL, endorsed(machine, honest.endorse(ek_of(machine)), [honest.der]))
    accepted(service, machine)


def test_ct_1_an_emulators_certificate_is_told_apart(service: Deployment) -> None:
    genuine, emulated = Machine.create(service.maker), Machine.create(None)
    certificate = service.maker.endorse(emulated.ek, manufacturer="id:00001014")
    service.enroll(genuine)
    service.enroll(replace(emulated, ek_certificate=certificate))
    assert service.row(genuine).assurance == "ek_verified"
    assert service.row(emulated).assurance == "emulated"


# CT-4


@pytest.mark.parametrize(("span", "cause"), [(PAST, "ek_expired"), (FUTURE, "ek_not_yet_valid")])
def test_ct_4_a_certificate_out_of_its_time_is_refused(
    service: Deployment, machine: Machine, span: dict[str, datetime], cause: str
) -> None:
    refused(service, endorsed(machine, ROOT.endorse(ek_of(machine, **span))), cause)
    accepted(service, machine)


@pytest.mark.parametrize("span", [PAST, FUTURE], ids=["over", "to come"])
def test_ct_4_nor_does_an_intermediate_out_of_its_time_vouch(
    service: Deployment, machine: Machine, span: dict[str, datetime]
) -> None:
    maker, sound = ROOT.authority("Maker CA", **span), ROOT.authority("Maker CA", **SPAN)
    status, told = service.post(ENROLL, endorsed(machine, maker.endorse(ek_of(machine)), [maker.der]))
    assert (status, told["code"]) == (403, "enrollment_refused")
    service.expect(201, ENROLL, endorsed(machine, sound.endorse(ek_of(machine)), [sound.der]))


@pytest.mark.parametrize("root", [OLD_ROOT, COMING_ROOT], ids=["over", "to come"])
def test_ct_4_nor_a_root_though_it_lies_in_the_store(
    service: Deployment, machine: Machine, root: Authority
) -> None:
    status, told = service.post(ENROLL, endorsed(machine, root.endorse(ek_of(machine))))
    assert (status, told["code"]) == (403, "enrollment_refused")
    accepted(service, machine)


def test_ct_4_the_year_9999_is_a_long_time_and_no_more(service: Deployment, machine: Machine) -> None:
    never = {"not_after": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)}
    service.expect(201, ENROLL, endorsed(machine, ROOT.endorse(ek_of(machine, **never))))


# CT-5

KEY_USAGES: dict[str, tuple[str, ...]] = {
    "signatures": ("digital_signature",),
    "certificates": ("key_agreement", "key_cert_sign"),
    "nothing that decrypts": ("content_commitment",),
}
PURPOSES: dict[str, tuple[str, ...]] = {
    "an attestation key": ("2.23.133.8.3",),
    "a platform": ("2.23.133.8.2",),
    "a TLS server": ("1.3.6.1.5.5.7.3.1",),
    "a TLS client": ("1.3.6.1.5.5.7.3.2",),
    "anything": ("2.5.29.37.0",),
    "an EK and a TLS server": (EK_PURPOSE, "1.3.6.1.5.5.7.3.1"),
    "an EK and an attestation key": (EK_PURPOSE, "2.23.133.8.3"),
}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_ct_5_a_certificate_for_another_purpose_is_no_ek_certificate(
    service: Deployment, machine: Machine, purpose: str
) -> None:
    form = ek_of(machine).having(*purposes(*PURPOSES[purpose]))
    refused(service, endorsed(machine, ROOT.endorse(form)), PROFILE)
    accepted(service, machine)


@pytest.mark.parametrize("granted", KEY_USAGES)
def test_ct_5_its_key_decrypts_and_signs_no_certificates(
    service: Deployment, machine: Machine, granted: str
) -> None:
    form = ek_of(machine).having(*usage(*KEY_USAGES[granted]))
    refused(service, endorsed(machine, ROOT.endorse(form)), PROFILE)
    accepted(service, machine)


def test_ct_5_it_is_no_authority_and_has_nothing_that_is_not_understood(
    service: Deployment, machine: Machine
) -> None:
    form = ek_of(machine)
    wrong = [
        form.having(*constraints(True)),
        replace(form, extensions=(*form.extensions, unknown(critical=True))),
        form.having(*directory_name(*MAKER[:2])),
        form.having(*directory_name(*MAKER, ("2.23.133.2.1", "id:4E544300"))),
    ]
    for one in wrong:
        refused(service, endorsed(machine, ROOT.endorse(one)), PROFILE)
    harmless = replace(form, extensions=(*form.extensions, unknown(critical=False)))
    service.expect(201, ENROLL, endorsed(machine, ROOT.endorse(harmless)))


def test_ct_5_other_certificates_of_the_same_authority_are_none(
    service: Deployment, machine: Machine
) -> None:
    key = machine.ek.public_key()
    extensions = (usage("digital_signature"), constraints(False))
    server = Form(common_name("tls.example.org"), key, extensions, **SPAN)
    below = authority_form("Maker CA", key, **SPAN)
    for form in (server, below):
        refused(service, endorsed(machine, ROOT.endorse(form)), PROFILE)
    refused(service, endorsed(machine, b"\x30\x03\x02\x01\x00"), "ek_certificate_unreadable")
    refused(service, endorsed(machine, b"no certificate"), "ek_certificate_unreadable")
    accepted(service, machine)


def test_ct_5_a_contradiction_refuses_in_every_mode(tmp_path: Path) -> None:
    machine = Machine.create(None)
    settings = {"tofu": "true", "ek_allow": f'["{machine.device_id}"]'}
    lenient = Deployment.create(tmp_path / "service", settings=settings | {"audit_unproven": "0"})
    stranger = Authority.root("Nobody", **SPAN)
    refused(lenient, endorsed(machine, stranger.endorse(ek_of(machine, **PAST))), "ek_expired")
    form = ek_of(machine).having(*purposes("2.23.133.8.3"))
    refused(lenient, endorsed(machine, stranger.endorse(form)), PROFILE)
    other = ek_of(Machine.create(None))
    refused(lenient, endorsed(machine, stranger.endorse(other)), "ek_key_mismatch")
    lenient.expect(201, ENROLL, endorsed(machine, stranger.endorse(ek_of(machine))))
    lenient.close()


# CT-7


def test_ct_7_at_most_eight_certificates_are_read(service: Deployment, machine: Machine) -> None:
    chain = [ROOT]
    for number in range(7):
        chain.append(chain[-1].authority(f"CA {number}", **SPAN))
    leaf = chain[6].endorse(ek_of(machine))
    service.expect(201, ENROLL, endorsed(machine, leaf, [one.der for one in chain[1:7]]))
    refused(service, endorsed(machine, leaf, [one.der for one in chain]), "ek_chain_too_long")
    told = service.problem(endorsed(machine, leaf, [ROOT.der] * 9), 400, "malformed", ENROLL)
    assert told["pointer"] == "/ek_chain"
    told = service.problem(endorsed(machine, leaf, [ROOT.der] * 1000), 400, "malformed", ENROLL)
    assert told["pointer"] == "/ek_chain"


def test_ct_7_a_certificate_is_at_most_16_kib(service: Deployment, machine: Machine) -> None:
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.2"), bytes(17_000))
    form = ek_of(machine)
    large = replace(form, extensions=(*form.extensions, (filler, False)))
    refused(service, endorsed(machine, ROOT.endorse(large)), "ek_certificate_too_large")
    accepted(service, machine)


def test_ct_7_authorities_that_vouch_for_each_other_lead_nowhere(
    service: Deployment, machine: Machine
) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    first, second = (Authority.root(f"Ring {number}", key, **SPAN) for number, key in enumerate(keys))
    crossed = [
        first.authority("Ring 1", keys[1], **SPAN),
        second.authority("Ring 0", keys[0], **SPAN),
    ]
    body = endorsed(machine, first.endorse(ek_of(machine)), [one.der for one in crossed] * 3)
    refused(service, body, UNTRUSTED)
    accepted(service, machine)


@pytest.fixture
def canary() -> Iterator[tuple[int, list[object]]]:
    """A port that listens, and who came."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def wait() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                visitors.append(address)
                connection.close()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        yield listener.getsockname()[1], visitors
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def pointing_to(form: Form, url: str) -> Form:
    """With places where its issuer and its revocation could be looked up."""
    name = x509.UniformResourceIdentifier(url)
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, name),
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, name),
        ]
    )
    revocation = x509.CRLDistributionPoints([x509.DistributionPoint([name], None, None, None)])
    return replace(form, extensions=(*form.extensions, (access, False), (revocation, False)))


def test_ct_7_nothing_is_fetched_for_an_enrolment(
    service: Deployment, machine: Machine, canary: tuple[int, list[object]]
) -> None:
    port, visitors = canary
    for url in (f"http://127.0.0.1:{port}/ca.crt", "http://169.254.169.254/latest", "file:///etc/passwd"):
        form = pointing_to(ek_of(machine), url)
        service.expect(201, ENROLL, endorsed(machine, ROOT.endorse(form)))
        stranger = Authority.root("Nobody", **SPAN)
        refused(service, endorsed(machine, stranger.endorse(form)), UNTRUSTED)
    assert visitors == []
    with socket.create_connection(("127.0.0.1", port)) as knock:
        knock.recv(1)
    assert len(visitors) == 1


# CT-8

ROCA = roca_modulus(2048)


def with_modulus(machine: Machine, modulus: int, exponent: int = 0) -> tuple[bytes, Form]:
    """The endorsement key's public area and certificate with other numbers."""
    raw = machine.ek_public[:-262] + exponent.to_bytes(4, "big") + sized(modulus.to_bytes(256, "big"))
    return raw, ek_form(rsa_key(modulus, exponent or 65537), **SPAN)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda n: (ROCA, 0), "weak_key"),
        (lambda n: (n - 1, 0), "weak_key"),
        (lambda n: (n, 3), "weak_key"),
        (lambda n: (n, 17), "weak_key"),
        (lambda n: (n >> 1 | 1, 0), "ek_template"),
    ],
    ids=["ROCA", "even", "e = 3", "e = 17", "2047 bits"],
)
def test_ct_8_a_weak_endorsement_key_is_refused(service: Deployment, change: Any, cause: str) -> None:
    machine = Machine.create(None, ek="rsa")
    numbers = machine.ek.public_key().public_numbers()
    assert isinstance(numbers, rsa.RSAPublicNumbers)
    raw, form = with_modulus(machine, *change(numbers.n))
    body = endorsed(machine, ROOT.endorse(form)) | {"ek_public": b64(sized(raw))}
    refused(service, body, cause)
    accepted(service, machine)


CURVES = [ec.SECP192R1(), ec.SECP256K1(), ec.BrainpoolP256R1()]


@pytest.mark.parametrize("curve", CURVES, ids=[one.name for one in CURVES])
def test_ct_8_a_certificate_over_another_curve_is_refused(
    service: Deployment, machine: Machine, curve: ec.EllipticCurve
) -> None:
    form = ek_form(ec.generate_private_key(curve).public_key(), **SPAN)
    refused(service, endorsed(machine, ROOT.endorse(form)), "weak_key")
    accepted(service, machine)


def with_roca(public: bytes) -> bytes:
    return public[:-256] + ROCA.to_bytes(256, "big")


def test_ct_8_a_broken_library_makes_no_key_of_ours(service: Deployment) -> None:
    """The keys of TPMs are what that library was made for: all that can be sent are looked at."""
    machine = Machine.create(service.maker, ak="rsa")
    roca = enrollment_body(machine, ak_public=b64(sized(with_roca(machine.ak_public))))
    refused(service, roca, "weak_key")
    service.enroll(machine)
    jwk = jwk_of(new_key("rsa")) | {"n": b64url(ROCA.to_bytes(256, "big"))}
    body = service.round(machine, credentials=[credential("x509-svid", key=jwk)]).body()
    told = service.problem(body, 400, "malformed", cause="weak_key")
    assert told["pointer"] == "/request/credentials/0/key"
    for kind in ("rsa", "parent"):
        key = signing_key("rsa") if kind == "rsa" else parent_key("rsa")
        broken = TpmKey(key.key, with_roca(key.public))
        asked: dict[str, Any] = {"credentials": [credential("x509-svid", key={"name": broken.name.hex()})]}
        if kind == "parent":
            asked = {"sealed_keys": [{"name": "disk", "parent": {"name": broken.name.hex()}}]}
        body = service.round(machine, certified=[broken], **asked).body()
        told = service.problem(body, 403, "evidence_incomplete")
        assert told["findings"][0]["code"] in {"key_not_resident", "key_not_proven"}
    service.attest(machine)


def test_an_empty_trust_store_trusts_nobody(tmp_path: Path) -> None:
    alone = Deployment.create(tmp_path / "service", settings={"audit_unproven": "0"})
    machine = Machine.create(alone.maker)
    (alone.directory / "ek-roots" / "maker.pem").unlink()
    alone.restart()
    refused(alone, enrollment_body(machine), UNTRUSTED)
    (alone.directory / "ek-roots" / "maker.pem").write_bytes(alone.maker.pem)
    alone.restart()
    alone.enroll(machine)
    alone.close()


def test_makers_roots_in_one_store_do_not_vouch_for_each_other(service: Deployment) -> None:
    mine, other = TestMaker.create("A"), Machine.create(service.maker)
    root = service.maker.certificate.public_bytes(Encoding.DER)
    refused(service, endorsed(other, mine.endorse(other.ek), [root]), UNTRUSTED)
    service.enroll(other)
