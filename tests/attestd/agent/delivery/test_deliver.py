"""What one attestation leaves is written whole, or not at all."""

from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate

from attestd.agent.attest import Part, Received, Wanted
from attestd.agent.delivery.deliver import deliver
from attestd.agent.errors import Unreachable
from tests.attestd.agent.delivery.delivered import MINUTE, NOW, another_version, key_and_certificate


def bundle_of(certificate: bytes) -> dict[str, object]:
    lines = certificate.decode().splitlines()
    return {"keys": [{"use": "x509-svid", "x5c": ["".join(lines[1:-1])]}]}


def test_ag_1_an_authority_of_another_version_leaves_no_file(tmp_path: Path) -> None:
    _, certificate = key_and_certificate(NOW + MINUTE)
    credential = {"format": "x509-svid", "certificate_chain": certificate.decode()}
    part = Part(Wanted("telemetry", ("x509-svid",), "software", (), ()), (credential,), (), None)
    received = Received({"result": "r.r.r"}, (part,), (0, 0))
    with pytest.raises(Unreachable, match="is it attestd"):
        deliver(received, bundle_of(another_version(certificate)), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    deliver(received, bundle_of(certificate), out=tmp_path / "out")
    written = (tmp_path / "out" / "bundle.pem").read_bytes()
    assert load_pem_x509_certificate(written) == load_pem_x509_certificate(certificate)
