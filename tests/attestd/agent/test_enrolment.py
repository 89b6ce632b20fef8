"""A machine becomes a device of the service, once and for good, and again whenever it likes."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.serving import Agent, Serving
from tpm.device.device import Device
from tpm.device.keys import attestation_public
from tpm.structures.public import PublicArea
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import make_test_ca


def ak_of(agent: Agent) -> PublicArea:
    return attestation_public((agent.state / "ak.recipe").read_bytes())


def test_a_machine_of_a_trusted_maker_is_active_and_told_so(serving: Serving, newcomer: Agent) -> None:
    told = newcomer.enroll()
    assert told.stdout == f"active {newcomer.device_id}\n"
    known = serving.device(newcomer.device_id)
    assert (known["state"], known["ak_name"]) == ("active", ak_of(newcomer).name.hex())


def test_a_machine_of_an_unknown_maker_is_pending_until_approved(serving: Serving, tmp_path: Path) -> None:
    with SoftwareTpm(ca=make_test_ca("another maker")) as tpm:
        agent = Agent(tpm, tmp_path / "state", serving.url)
        told = agent.enroll()
        assert told.stdout == f"pending {agent.device_id}\n"
        assert "attestd device approve" in told.stderr
        refused = agent.attest(tmp_path / "out", status=1)
        assert json.loads(refused.stderr)["code"] == "device_pending"
        serving.operate("device", "approve", agent.device_id)
        agent.attest(tmp_path / "out")
        assert json.loads(agent("status", "--json").stdout)["state"] == "active"


def test_what_the_operator_is_told_to_type_works(serving: Serving, tmp_path: Path) -> None:
    with SoftwareTpm(ca=make_test_ca("another maker")) as tpm:
        command = Agent(tpm, tmp_path / "state", serving.url).enroll().stderr.partition("attestd ")[2]
        serving.operate(*command.split())


def test_enrolling_again_changes_nothing(serving: Serving, agent: Agent) -> None:
    before = {path.name: path.read_bytes() for path in agent.state.iterdir()}
    known = serving.device(agent.device_id)
    assert agent.enroll().stdout == f"active {agent.device_id}\n"
    assert {path.name: path.read_bytes() for path in agent.state.iterdir()} == before
    assert serving.device(agent.device_id)["ak_name"] == known["ak_name"]


def test_after_its_state_was_lost_it_is_the_same_device_with_a_new_key(
    serving: Serving, agent: Agent, tmp_path: Path
) -> None:
    serving.operate("device", "rename", agent.device_id, f"press-{agent.device_id[:8]}")
    reborn = Agent(agent.tpm, tmp_path / "new state", agent.url)
    assert reborn.enroll().stdout == f"active {agent.device_id}\n"
    known = serving.device(agent.device_id)
    assert known["name"] == f"press-{agent.device_id[:8]}"
    assert known["ak_name"] == ak_of(reborn).name.hex() != ak_of(agent).name.hex()
    reborn.attest(tmp_path / "out")
    assert json.loads(agent.attest(tmp_path / "old", status=1).stderr)["code"] == "attestation_failed"


@pytest.mark.parametrize("spoiled", [b"", b"\0\x05abc", None], ids=["empty", "damaged", "other_tpm"])
def test_a_key_that_the_tpm_no_longer_makes_is_replaced(
    agent: Agent, tmp_path: Path, spoiled: bytes | None
) -> None:
    kept = (agent.state / "ak.recipe").read_bytes()
    if spoiled is None:
        with SoftwareTpm() as other:
            moved = Agent(other, agent.state, agent.url)
            assert "ak_changed" in moved.attest(tmp_path / "out", status=1).stderr
            moved.enroll()
            moved.attest(tmp_path / "out")
    else:
        (agent.state / "ak.recipe").write_bytes(spoiled)
        agent.enroll()
        agent.attest(tmp_path / "out")
    assert (agent.state / "ak.recipe").read_bytes() != kept


def test_an_rsa_endorsement_key_serves_as_well(serving: Serving, tmp_path: Path) -> None:
    with SoftwareTpm(ek=("rsa",)) as tpm:
        agent = Agent(tpm, tmp_path / "state", serving.url)
        assert agent.enroll().stdout.startswith("active ")
        agent.attest(tmp_path / "out", "--agent", "telemetry", "--format", "x509-svid", "--seal", "disk")
        assert len(agent("unseal", tmp_path / "out" / "disk.seal.json").stdout_bytes) == 32


def test_the_attestation_key_is_of_the_kind_asked_for_and_stays(agent: Agent, tmp_path: Path) -> None:
    assert ak_of(agent).type == "ecc"
    agent.enroll("--ak", "rsa")
    rsa = ak_of(agent)
    assert rsa.type == "rsa"
    agent.enroll()
    assert ak_of(agent) == rsa
    agent.attest(tmp_path / "out")


def test_the_state_is_its_owners_alone(agent: Agent) -> None:
    assert agent.state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in agent.state.iterdir()} == {0o600}


def test_a_banned_device_is_told_and_forgets_nothing(serving: Serving, agent: Agent) -> None:
    serving.operate("device", "ban", agent.device_id)
    before = {path.name: path.read_bytes() for path in agent.state.iterdir()}
    assert json.loads(agent.enroll(status=1).stderr)["code"] == "device_banned"
    assert {path.name: path.read_bytes() for path in agent.state.iterdir()} == before


def test_a_machine_without_a_tpm_is_told_what_to_do(serving: Serving, tmp_path: Path) -> None:
    with SoftwareTpm() as tpm:
        agent = Agent(tpm, tmp_path / "state", serving.url)
        missing = agent.enroll("--tpm", f"swtpm:path={tmp_path}/nothing", status=1)
    assert "swtpm" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1


def test_the_identifier_is_the_hash_of_the_endorsement_key(agent: Agent) -> None:
    with Device(agent.tpm.tcti) as device:
        certificate = device.endorsement().certificate
    assert certificate is not None
    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert agent.device_id == sha256(spki).hexdigest()
