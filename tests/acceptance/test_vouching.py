"""Who is admitted on whose word: denied makers and firmware, makers set aside, operators' certificates."""

import hashlib
import json
import struct
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.clock import now_ms
from tests.attester import (
    AES128CFB,
    EK_ATTRIBUTES,
    POLICY_A,
    Machine,
    TestMaker,
    activation_body,
    b64,
    enrollment_body,
    sized,
)
from tests.deployment import SERVER, Deployment, policy_for
from tpm.verify.certificate_pem import read_certificate_file
from tpm.verify.certificate_reader import read_certificate

ENROLL, ATTEST = "/v1/enrollments", "/v1/attestations"


def setting(deployment: Deployment, line: str) -> None:
    """One more line of [admission], and a new process."""
    path = deployment.directory / "attestd.toml"
    path.write_text(path.read_text().replace("[admission]\n", f"[admission]\n{line}\n", 1))
    deployment.restart()


@pytest.fixture
def strangers() -> TestMaker:
    """A maker whom nobody trusts."""
    return TestMaker.create("Unknown Maker Root")


def root_der(maker: TestMaker) -> bytes:
    return maker.certificate.public_bytes(Encoding.DER)


# CT-8 and QT-12


def test_ct_8_a_denied_maker_is_refused_whoever_vouches(deployment: Deployment) -> None:
    machine = Machine.create(deployment.maker)
    deployment.expect(201, ENROLL, enrollment_body(machine))
    setting(deployment, 'denied_manufacturers = ["NTC", "IFX"]')
    deployment.problem(enrollment_body(machine), 403, "enrollment_refused", ENROLL, cause="vendor_denied")
    assert deployment.count("devices") == 0
    path = deployment.directory / "attestd.toml"
    path.write_text(path.read_text().replace('["NTC", "IFX"]', '["NTC"]'))
    deployment.restart()
    deployment.expect(201, ENROLL, enrollment_body(machine))


def test_ct_8_a_denied_maker_is_refused_by_the_word_of_a_certificate_that_nobody_confirms(
    tmp_path: Path,
) -> None:
    lenient = Deployment.create(tmp_path / "service", settings={"tofu": "true", "audit_unproven": "0"})
    machine = Machine.create(TestMaker.create())
    lenient.expect(201, ENROLL, enrollment_body(machine))
    setting(lenient, 'denied_manufacturers = ["IFX"]')
    lenient.problem(enrollment_body(machine), 403, "enrollment_refused", ENROLL, cause="vendor_denied")
    lenient.close()


def test_ct_8_a_maker_that_is_denied_later_gets_nothing_more(
    deployment: Deployment, machine: Machine
) -> None:
    deployment.attest(machine)
    setting(deployment, 'denied_manufacturers = ["IFX"]')
    body = deployment.round(machine.later()).body()
    deployment.problem(body, 403, "enrollment_refused", cause="vendor_denied")
    # Nor does a machine shed its maker by enrolling again without a certificate.
    again = replace(machine.with_new_ak(), ek_certificate=None)
    deployment.enroll(again)
    body = deployment.round(again.later()).body()
    deployment.problem(body, 403, "enrollment_refused", cause="vendor_denied")


def test_qt_12_denied_firmware_gets_nothing(deployment: Deployment, machine: Machine) -> None:
    deployment.attest(machine)
    found = deployment.row(machine).firmware_version
    setting(deployment, f'denied_firmware = ["{found:016x}"]')
    body = deployment.round(machine.later()).body()
    deployment.problem(body, 403, "enrollment_refused", cause="tpm_firmware_denied")
    path = deployment.directory / "attestd.toml"
    path.write_text(path.read_text().replace(f"{found:016x}", f"{found ^ 1:016x}"))
    deployment.restart()
    deployment.attest(machine.later())


@pytest.mark.parametrize("line", ['denied_firmware = ["1"]', 'denied_manufacturers = ["Infineon"]'])
def test_what_is_no_maker_or_version_stops_the_start(deployment: Deployment, line: str) -> None:
    path = deployment.directory / "attestd.toml"
    path.write_text(path.read_text().replace("[admission]\n", f"[admission]\n{line}\n", 1))
    told = deployment.operate("check", status=1).output
    assert line.partition(" ")[0] in told


# The quarantine


def refuse(deployment: Deployment, maker: TestMaker, *, with_root: bool = True) -> Machine:
    machine = Machine.create(maker)
    chain = [b64(root_der(maker))] if with_root else []
    body = enrollment_body(machine, ek_chain=chain)
    deployment.problem(body, 403, "enrollment_refused", ENROLL, cause="ek_chain_untrusted")
    return machine


def test_an_unknown_maker_is_set_aside_and_trusted_by_one_command(
    deployment: Deployment, strangers: TestMaker
) -> None:
    assert deployment.listed("ek-roots", "quarantine") == []
    machine = refuse(deployment, strangers)
    refuse(deployment, strangers)
    (told,) = deployment.listed("ek-roots", "quarantine")
    assert (told["manufacturer"], told["model"], told["issuer"]) == (
        "IFX",
        "SLB9670",
        "CN=Unknown Maker Root",
    )
    root = told["root"]
    assert root == fingerprint(strangers)
    # Nobody trusts by accident: the fingerprint is shown and has to be named.
    shown = deployment.operate("ek-roots", "trust", told["id"], status=1)
    assert root in shown.stderr
    deployment.operate("ek-roots", "trust", told["id"], "--sha256", "ab" * 32, status=1)
    assert len(deployment.listed("ek-roots", "quarantine")) == 1
    deployment.operate("ek-roots", "trust", told["id"], "--sha256", root)
    assert deployment.listed("ek-roots", "quarantine") == []
    trusted = {one["fingerprint"]: one for one in deployment.listed("ek-roots", "list")}
    assert trusted[root]["imported_from"] == f"quarantine {told['id']}"
    assert trusted[root]["reviewed"] == "fingerprint"
    deployment.restart()
    deployment.enroll(machine)
    assert deployment.row(machine).assurance == "ek_verified"


def fingerprint(maker: TestMaker) -> str:
    return hashlib.sha256(root_der(maker)).hexdigest()


def test_a_maker_without_its_root_is_listed_and_cannot_be_trusted_so(
    deployment: Deployment, strangers: TestMaker
) -> None:
    refuse(deployment, strangers, with_root=False)
    (told,) = deployment.listed("ek-roots", "quarantine")
    assert told["root"] is None
    done = deployment.operate("ek-roots", "trust", told["id"], "--yes", status=1)
    assert "get it from the maker" in done.stderr
    deployment.operate("ek-roots", "trust", "0" * 16, "--yes", status=1)


def test_a_root_that_came_along_and_signed_nothing_is_not_offered(
    deployment: Deployment, strangers: TestMaker
) -> None:
    machine = Machine.create(strangers)
    clone = TestMaker.create("Unknown Maker Root")
    body = enrollment_body(machine, ek_chain=[b64(root_der(clone))])
    deployment.problem(body, 403, "enrollment_refused", ENROLL, cause="ek_chain_untrusted")
    (told,) = deployment.listed("ek-roots", "quarantine")
    assert told["root"] is None


def test_refusals_of_other_kinds_and_admissions_set_nothing_aside(deployment: Deployment) -> None:
    machine = Machine.create(deployment.maker)
    deployment.expect(201, ENROLL, enrollment_body(machine))
    nobody = replace(Machine.create(TestMaker.create()), ek_certificate=None)
    deployment.problem(
        enrollment_body(nobody), 403, "enrollment_refused", ENROLL, cause="ek_certificate_missing"
    )
    foreign = replace(machine, ek_certificate=Machine.create(deployment.maker).ek_certificate)
    deployment.problem(enrollment_body(foreign), 403, "enrollment_refused", ENROLL, cause="ek_key_mismatch")
    assert deployment.listed("ek-roots", "quarantine") == []


# The operator's certificates


def test_a_tpm_without_a_certificate_enrols_with_the_operators(deployment: Deployment) -> None:
    machine = Machine.create(deployment.maker)
    bare = replace(machine, ek_certificate=None)
    deployment.problem(
        enrollment_body(bare), 403, "enrollment_refused", ENROLL, cause="ek_certificate_missing"
    )
    file = deployment.directory / "ek.der"
    file.write_bytes(certificate_of(machine))
    done = deployment.operate("device", "certificate", machine.device_id, str(file))
    assert "the root of IFX vouches" in done.stdout
    deployment.enroll(bare)
    row = deployment.row(machine)
    assert (row.assurance, row.manufacturer, row.state) == ("ek_verified", "IFX", "active")
    assert row.ek_certificate == certificate_of(machine)
    # What vouched is the maker's root, whose withdrawal ends it.
    deployment.apply(policy_for(bare))
    (deployment.directory / "ek-roots" / "maker.pem").unlink()
    later = now_ms() + 2000
    body = deployment.round(bare.later(), now=later).body()
    assert deployment.refusal(ATTEST, body, now=later) == ("enrollment_refused", "ek_root_withdrawn")


def certificate_of(machine: Machine) -> bytes:
    assert machine.ek_certificate is not None
    return machine.ek_certificate


def test_an_inventorys_certificate_vouches_for_a_tpm_that_sends_none(deployment: Deployment) -> None:
    machine = Machine.create(deployment.maker)
    line = {"ek_certificate": b64encode(certificate_of(machine)).decode(), "name": "gw-9"}
    (deployment.directory / "inventory").write_text(json.dumps(line))
    deployment.operate("device", "import", str(deployment.directory / "inventory"))
    deployment.enroll(replace(machine, ek_certificate=None))
    assert (deployment.row(machine).name, deployment.row(machine).assurance) == ("gw-9", "ek_verified")


def test_an_operators_certificate_that_nobody_confirms_vouches_for_nothing(
    deployment: Deployment, strangers: TestMaker
) -> None:
    machine = Machine.create(strangers)
    bare = replace(machine, ek_certificate=None)
    file = deployment.directory / "ek.der"
    file.write_bytes(certificate_of(machine))
    done = deployment.operate("device", "certificate", machine.device_id, str(file))
    assert "no trusted root" in done.stdout
    deployment.problem(
        enrollment_body(bare), 403, "enrollment_refused", ENROLL, cause="ek_certificate_missing"
    )
    (deployment.directory / "ek-roots" / "late.pem").write_bytes(strangers.pem)
    deployment.restart()
    deployment.enroll(bare)
    assert deployment.row(machine).assurance == "ek_verified"


def test_the_certificate_of_another_tpm_is_not_kept(deployment: Deployment) -> None:
    machine, other = Machine.create(deployment.maker), Machine.create(deployment.maker)
    file = deployment.directory / "ek.der"
    file.write_bytes(certificate_of(other))
    assert (
        "speaks of the key"
        in deployment.operate("device", "certificate", machine.device_id, str(file), status=1).stderr
    )
    file.write_bytes(certificate_of(machine)[:-1])
    deployment.operate("device", "certificate", machine.device_id, str(file), status=2)
    deployment.operate("device", "certificate", "nobody", str(file), status=2)
    assert deployment.count("supplied_certificates") == 0


def test_what_a_tpm_sends_counts_before_the_operators(deployment: Deployment, strangers: TestMaker) -> None:
    machine = Machine.create(deployment.maker)
    file = deployment.directory / "ek.der"
    file.write_bytes(certificate_of(machine))
    deployment.operate("device", "certificate", machine.device_id, str(file))
    own = replace(machine, ek_certificate=strangers.endorse(machine.ek))
    deployment.problem(enrollment_body(own), 403, "enrollment_refused", ENROLL, cause="ek_chain_untrusted")
    begun = deployment.expect(201, ENROLL, enrollment_body(replace(machine, ek_certificate=None)))
    deployment.expect(201, "/v1/activations", activation_body(machine, begun, SERVER))


# Makers' certificates as they are

VECTORS = Path(__file__).parent.parent / "vectors"
AS_THEY_ARE = {
    "nuvoton-keylime": ("ibmtss-certificates/NuvotonTPMRootCA2111.pem", ()),
    "intel-ptt-spth": (
        "ibmtss-certificates/IntelEKRootCA.pem",
        ("ibmtss-certificates/IntelEKIntermediate.pem",),
    ),
}


def ek_public(certificate: bytes) -> bytes:
    """TPM2B_PUBLIC of the certified RSA key in the TCG's template L-1."""
    key = read_certificate(certificate).key
    assert isinstance(key, rsa.RSAPublicKey)
    modulus = key.public_numbers().n.to_bytes(256, "big")
    head = struct.pack(">HHI", 1, 0xB, EK_ATTRIBUTES) + sized(POLICY_A) + AES128CFB + b"\0\x10"
    return sized(head + struct.pack(">HI", 2048, 0) + sized(modulus))


def signature_broken(certificate: bytes) -> bytes:
    return certificate[:-1] + bytes([certificate[-1] ^ 1])


@pytest.mark.parametrize("which", AS_THEY_ARE)
def test_a_certificate_that_a_strict_parser_refuses_is_believed_for_its_own_key_alone(
    deployment: Deployment, which: str
) -> None:
    root, above = AS_THEY_ARE[which]
    roots = VECTORS / "ek_roots"
    certificate = (VECTORS / "ek_certs" / which / "cert.der").read_bytes()
    chain = [b64(read_certificate_file((roots / one).read_bytes())[0].raw) for one in above]
    stranger = Machine.create(deployment.maker)

    def body(**changes: Any) -> dict[str, Any]:
        given = {"ek_public": b64(ek_public(certificate)), "ek_certificate": b64(certificate)}
        return enrollment_body(stranger, **{**given, "ek_chain": chain, **changes})

    deployment.problem(body(), 403, "enrollment_refused", ENROLL, cause="ek_chain_untrusted")
    deployment.operate("ek-roots", "import", str(roots / root), "--yes")
    deployment.restart()
    deployment.expect(201, ENROLL, body())
    broken = b64(signature_broken(certificate))
    deployment.problem(body(ek_certificate=broken), 403, "enrollment_refused", ENROLL)
    other = enrollment_body(stranger)["ek_public"]
    deployment.problem(body(ek_public=other), 403, "enrollment_refused", ENROLL, cause="ek_key_mismatch")
