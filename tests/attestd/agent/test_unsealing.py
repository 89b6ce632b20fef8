"""What was sealed to a machine opens there, as long as it is what it was, and nowhere else."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.serving import Agent, Serving
from tpm.device.device import Device
from tpm.device.key_file import KeyFile, decode_key_file
from tpm.swtpm import SoftwareTpm


def sealed(agent: Agent, out: Path, name: str) -> Path:
    agent.attest(out, "--seal", name)
    return out / f"{name}.seal.json"


def key_of(agent: Agent, file: Path) -> KeyFile:
    return decode_key_file(agent("unseal", file).stdout)


def test_a_secret_comes_out_as_its_bytes_each_time_the_same(agent: Agent, tmp_path: Path) -> None:
    file = sealed(agent, tmp_path, "disk")
    secret = agent("unseal", file).stdout_bytes
    assert len(secret) == 32
    assert agent("unseal", file).stdout_bytes == secret
    other = sealed(agent, tmp_path / "again", "disk")
    assert agent("unseal", other).stdout_bytes != secret, "each request mints a new secret"


def test_a_sealed_p256_key_signs_as_long_as_the_registers_hold(agent: Agent, tmp_path: Path) -> None:
    file = key_of(agent, sealed(agent, tmp_path, "signer"))
    public = file.blob.area.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    with Device(agent.tpm.tcti) as device, device.key(file.blob) as key:
        value = device.sign(key, b"message", registers=file.registers, scheme="ecdsa")
    signature = encode_dss_signature(int.from_bytes(value[:32]), int.from_bytes(value[32:]))
    public.verify(signature, b"message", ec.ECDSA(SHA256()))


def test_a_sealed_rsa_key_signs(agent: Agent, tmp_path: Path) -> None:
    file = key_of(agent, sealed(agent, tmp_path, "vault"))
    public = file.blob.area.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    with Device(agent.tpm.tcti) as device, device.key(file.blob) as key:
        value = device.sign(key, b"message", registers=file.registers, scheme="rsassa")
    public.verify(value, b"message", padding.PKCS1v15(), SHA256())


def test_a_sealed_hmac_key_authenticates(agent: Agent, tmp_path: Path) -> None:
    file = key_of(agent, sealed(agent, tmp_path, "mac"))
    with Device(agent.tpm.tcti) as device, device.key(file.blob) as key:
        first = device.hmac(key, b"message", registers=file.registers)
        assert first == device.hmac(key, b"message", registers=file.registers)
        assert first != device.hmac(key, b"another", registers=file.registers)


def test_it_stays_closed_once_the_machine_is_another(agent: Agent, tmp_path: Path) -> None:
    file = sealed(agent, tmp_path, "disk")
    agent.tpm.extend(7, {"sha256": b"\x11" * 32})
    refused = agent("unseal", file, status=1)
    assert refused.stdout_bytes == b""
    assert "the machine booted something else" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_register_that_it_is_not_sealed_to_may_move(agent: Agent, tmp_path: Path) -> None:
    file = sealed(agent, tmp_path, "disk")
    agent.tpm.extend(10, {"sha256": b"\x11" * 32})
    assert len(agent("unseal", file).stdout_bytes) == 32


def test_it_opens_after_a_reboot_into_the_same(agent: Agent, tmp_path: Path) -> None:
    file = sealed(agent, tmp_path, "disk")
    secret = agent("unseal", file).stdout_bytes
    agent.tpm.reset()
    assert agent("unseal", file).stdout_bytes == secret


def test_another_machine_cannot_open_it(serving: Serving, agent: Agent, tmp_path: Path) -> None:
    file = sealed(agent, tmp_path, "disk")
    with SoftwareTpm() as tpm:
        refused = Agent(tpm, tmp_path / "other", serving.url)("unseal", file, status=1)
    assert refused.stdout_bytes == b""
    assert "another TPM" in refused.stderr


@pytest.mark.parametrize(
    "members",
    [
        {"public": 1},
        {"duplicate": "not base64"},
        {"encrypted_seed": None},
        {"policy": []},
        {"policy": {"selection": {}}},
        {"policy": {"selection": {"sha256": [99]}}},
        {"policy": {"selection": {"sha256": [0], "sha1": [0]}}},
    ],
    ids=str,
)
def test_a_file_that_is_no_sealed_key_is_a_usage_error(
    agent: Agent, tmp_path: Path, members: dict[str, object]
) -> None:
    file = sealed(agent, tmp_path, "disk")
    file.write_text(json.dumps(json.loads(file.read_text()) | members))
    refused = agent("unseal", file, status=2)
    assert refused.stdout_bytes == b""
    assert "attestd agent attest --seal" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b"\xff\xfe"])
def test_so_is_a_file_of_something_else(newcomer: Agent, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert newcomer("unseal", tmp_path / "file", status=2).stdout_bytes == b""


@pytest.mark.parametrize("member", ["public", "duplicate", "encrypted_seed"])
def test_a_damaged_blob_does_not_open(agent: Agent, tmp_path: Path, member: str) -> None:
    file = sealed(agent, tmp_path, "disk")
    members = json.loads(file.read_text())
    for damaged in (members[member][:40] + "AAAA" + members[member][44:], "AA=="):
        file.write_text(json.dumps(members | {member: damaged}))
        refused = agent("unseal", file, status=1)
        assert refused.stdout_bytes == b""
        assert len(refused.stderr.splitlines()) == 1
        assert "internal error" not in refused.stderr
