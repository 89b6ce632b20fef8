"""A machine proves itself and receives its credentials, whole and nothing else."""

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.attester import Machine, jwk_of, new_key, parent_key, signing_key
from tests.deployment import Deployment, credential


def test_a_healthy_machine_gets_everything_it_asked_for(deployment: Deployment, machine: Machine) -> None:
    key, parent = signing_key(), parent_key()
    answer = deployment.attest(
        machine,
        certified=(key, parent),
        credentials=[
            credential("x509-svid", "telemetry", key={"name": key.name.hex()}),
            credential("wit-svid", "telemetry", key={"name": key.name.hex()}),
            credential("jwt-svid", audience=["https://a.example.org"]),
        ],
        sealed_keys=[
            {"name": "disk", "parent": "ek"},
            {"name": "disk", "parent": {"name": parent.name.hex()}},
        ],
    )
    assert answer["verdict"] == "accepted"
    assert [c["format"] for c in answer["credentials"]] == ["x509-svid", "wit-svid", "jwt-svid"]
    assert [s["version"] for s in answer["sealed_keys"]] == [1, 2]
    leaf = x509.load_pem_x509_certificate(answer["credentials"][0]["certificate_chain"].encode())
    assert leaf.public_key() == key.key.public_key()
    claims = jwt.decode(answer["result"], options={"verify_signature": False})
    assert claims["sub"] == machine.device_id
    assert claims["submods"]["tpm"]["ear_status"] == "affirming"
    assert deployment.counts() == {"credentials": 3, "sealed_keys": 2, "devices": 1}
    assert len(deployment.audit(event="issue", decision="accepted")) == 5
    assert deployment.operate("audit", "verify").exit_code == 0


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_software_keys_of_both_kinds_are_bound_where_the_policy_allows_them(
    deployment: Deployment, machine: Machine, kind: str
) -> None:
    key = new_key(kind)
    answer = deployment.attest(machine, credentials=[credential("x509-svid", key=jwk_of(key))])
    leaf = x509.load_pem_x509_certificate(answer["credentials"][0]["certificate_chain"].encode())
    der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert leaf.public_key().public_bytes(*der) == key.public_key().public_bytes(*der)


@pytest.mark.parametrize(("ek", "ak"), [("p256", "p256"), ("rsa", "rsa"), ("rsa", "p256"), ("p256", "rsa")])
def test_every_kind_of_tpm_enrols_and_attests(
    deployment: Deployment, machine: Machine, ek: str, ak: str
) -> None:
    other = deployment.machine(ek=ek, ak=ak)
    assert deployment.attest(other, sealed_keys=[{"name": "disk", "parent": "ek"}])["verdict"] == "accepted"


def test_a_machine_that_booted_otherwise_gets_nothing_and_is_told_why(
    deployment: Deployment, machine: Machine
) -> None:
    changed = machine.extended(7, b"\x01" * 32)
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    body = deployment.round(changed, credentials=wanted).body()
    answer = deployment.problem(body, 403, "posture_rejected")
    assert answer["findings"] == [
        {
            "code": "pcr_unexpected",
            "subject": "pcr7",
            "expected": [machine.pcrs[7].hex()],
            "found": changed.pcrs[7].hex(),
        }
    ]
    assert deployment.attest(machine.later())["verdict"] == "accepted"
