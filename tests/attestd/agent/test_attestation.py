"""A machine that matches receives what it asked for, in files that work; another receives nothing."""

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.serving import FRESH, Agent, Serving
from tests.tpm.device.leftovers import leftovers
from tpm.device.device import Device
from tpm.device.key_file import decode_key_file
from tpm.swtpm import SoftwareTpm

ALL = ("--format", "x509-svid", "--format", "wit-svid", "--format", "jwt-svid")
EVERYTHING = ("--agent", "builder", *ALL, "--audience", "https://a.example.org", "--seal", "disk")
_CYCLES = 30


def svid_of(out: Path, agent: str) -> x509.Certificate:
    """The X.509-SVID, under an authority of the bundle beside it."""
    (leaf,) = x509.load_pem_x509_certificates((out / f"{agent}.svid.pem").read_bytes())
    authorities = x509.load_pem_x509_certificates((out / "bundle.pem").read_bytes())
    (issuer,) = [each for each in authorities if each.subject == leaf.issuer]
    leaf.verify_directly_issued_by(issuer)
    return leaf


def spiffe_id_of(leaf: x509.Certificate) -> str:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri


def claims_of(token: str, keys: dict[str, Any], **expected: Any) -> dict[str, Any]:
    """A token's claims, its signature checked under the published key that it names."""
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = [each for each in keys["keys"] if each.get("kid") == kid]
    claims: dict[str, Any] = jwt.decode(token, jwt.PyJWK(key), algorithms=["ES256"], **expected)
    return claims


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("key", ["tpm", "software"])
def test_everything_arrives_under_its_name_for_its_owner_alone(
    agent: Agent, tmp_path: Path, key: str
) -> None:
    out = tmp_path / "new" / "out"
    told = agent.attest(out, *EVERYTHING, "--key", key)
    expected = {"result.jwt", "bundle.pem", "builder.svid.pem", "builder.wit.jwt", "builder.jwt"}
    expected |= {"disk.seal.json", "builder.key.tss" if key == "tpm" else "builder.key.pem"}
    assert names_in(out) == expected
    assert {Path(line).name for line in told.stdout.splitlines()} == expected
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


def test_the_credentials_hold_under_what_the_service_publishes(
    serving: Serving, agent: Agent, tmp_path: Path
) -> None:
    agent.attest(tmp_path, *EVERYTHING)
    expected = f"spiffe://example.org/agent/builder/{agent.device_id}"
    leaf = svid_of(tmp_path, "builder")
    assert spiffe_id_of(leaf) == expected
    jwks, bundle = serving.get("/.well-known/jwks.json"), serving.get("/.well-known/spiffe/bundle")
    token = (tmp_path / "builder.jwt").read_text().strip()
    assert claims_of(token, jwks, audience="https://a.example.org")["sub"] == expected
    witness = claims_of((tmp_path / "builder.wit.jwt").read_text().strip(), bundle)
    assert witness["sub"] == expected
    bound = jwt.PyJWK(witness["cnf"]["jwk"]).key
    assert isinstance(bound, ec.EllipticCurvePublicKey)
    assert leaf.public_key() == bound
    result = claims_of((tmp_path / "result.jwt").read_text().strip(), jwks)
    assert (result["sub"], result["iss"]) == (agent.device_id, serving.url)


def test_a_key_in_the_tpm_signs_for_its_certificate(agent: Agent, tmp_path: Path) -> None:
    agent.attest(tmp_path, "--agent", "telemetry", "--format", "x509-svid")
    public = svid_of(tmp_path, "telemetry").public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    file = decode_key_file((tmp_path / "telemetry.key.tss").read_text())
    with Device(agent.tpm.tcti) as device, device.key(file.blob) as key:
        value = device.sign(key, b"message")
    r, s = int.from_bytes(value[:32]), int.from_bytes(value[32:])
    public.verify(encode_dss_signature(r, s), b"message", ec.ECDSA(SHA256()))


def test_a_key_in_a_file_belongs_to_its_certificate(agent: Agent, tmp_path: Path) -> None:
    agent.attest(tmp_path, "--agent", "builder", "--format", "x509-svid", "--key", "software")
    private = load_pem_private_key((tmp_path / "builder.key.pem").read_bytes(), None)
    assert private.public_key() == svid_of(tmp_path, "builder").public_key()


def test_without_a_wish_it_receives_its_result_alone(agent: Agent, tmp_path: Path) -> None:
    agent.attest(tmp_path / "out")
    assert names_in(tmp_path / "out") == {"result.jwt", "bundle.pem"}


def test_what_was_bound_to_the_key_before_does_not_stay_beside_the_new_one(
    agent: Agent, tmp_path: Path
) -> None:
    agent.attest(tmp_path / "out", *EVERYTHING, "--key", "tpm")
    agent.attest(tmp_path / "out", "--agent", "builder", "--format", "x509-svid", "--key", "software")
    assert names_in(tmp_path / "out") == {
        "result.jwt", "bundle.pem", "builder.svid.pem", "builder.key.pem", "builder.jwt", "disk.seal.json"
    }  # fmt: skip


def test_another_agents_files_stay(agent: Agent, tmp_path: Path) -> None:
    agent.attest(tmp_path / "out", "--agent", "telemetry", "--format", "x509-svid")
    agent.attest(tmp_path / "out", "--agent", "builder", "--format", "x509-svid")
    assert {"telemetry.svid.pem", "telemetry.key.tss"} <= names_in(tmp_path / "out")


def test_a_refusal_writes_nothing_and_says_what_was_expected_and_found(
    serving: Serving, agent: Agent, tmp_path: Path
) -> None:
    agent.tpm.extend(7, {"sha256": b"\x11" * 32})
    refused = agent.attest(tmp_path / "out", *EVERYTHING, status=1)
    assert not (tmp_path / "out").exists()
    assert refused.stdout == ""
    problem = json.loads(refused.stderr)
    assert (problem["status"], problem["code"]) == (403, "posture_rejected")
    (finding,) = problem["findings"]
    assert (finding["code"], finding["subject"]) == ("pcr_unexpected", "pcr7")
    assert finding["expected"] == ["00" * 32]
    assert finding["found"] != "00" * 32
    last = json.loads(agent("status", "--json").stdout)["last_attestation"]
    assert (last["verdict"], last["code"], last["findings"]) == ("refused", "posture_rejected", [finding])
    assert serving.device(agent.device_id)["live_credentials"] == 0


def test_a_refusal_leaves_what_was_there(agent: Agent, tmp_path: Path) -> None:
    agent.attest(tmp_path / "out", *EVERYTHING)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    refused = agent.attest(tmp_path / "out", "--agent", "nobody", "--format", "x509-svid", status=1)
    assert json.loads(refused.stderr)["code"] == "not_entitled"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_bank_that_the_policy_uses_is_quoted_next(tmp_path: Path) -> None:
    stronger = FRESH.replace('"fresh"', '"strong"').replace(
        "[pcrs]", '[match]\nlabels = { room = ["vault"] }\n[pcrs]'
    )
    stronger = 'bank = "sha384"\n' + stronger.replace("sha256:", "sha384:").replace("00" * 32, "00" * 48)
    with (
        Serving(tmp_path / "srv", policies=(FRESH, stronger)) as serving,
        SoftwareTpm() as tpm,
    ):
        agent = Agent(tpm, tmp_path / "state", serving.url)
        agent.enroll()
        agent.attest(tmp_path / "out", *EVERYTHING)
        rounds = [each for each in serving.listed("audit", "show") if each["event"] == "attest"]
        assert [each["decision"] for each in rounds] == ["refused", "accepted"]
        assert rounds[0]["code"] == "evidence_incomplete"


def test_ag_7_many_cycles_leave_no_handle(agent: Agent, tmp_path: Path) -> None:
    for _ in range(_CYCLES):
        agent.attest(tmp_path / "out", "--agent", "telemetry", "--format", "x509-svid", "--seal", "disk")
    agent.attest(tmp_path / "out", "--agent", "nobody", "--format", "x509-svid", status=1)
    agent("unseal", tmp_path / "out" / "disk.seal.json")
    agent.enroll()
    assert leftovers(agent.tpm) == {}
