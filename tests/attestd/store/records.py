"""Healthy rows that tests begin with and change one thing of."""

from typing import Any

from attestd.store.credentials import Issued
from attestd.store.devices import Device, Enrolment

NOW = 1_764_092_287_123
DAY = 86_400_000

ONE = "1f" * 32
TWO = "2e" * 32


def device(device_id: str = ONE, **changes: Any) -> Device:
    values: dict[str, Any] = {
        "device_id": device_id,
        "state": "active",
        "assurance": "ek_verified",
        "created_at": NOW,
        "updated_at": NOW,
        "manufacturer": "IFX",
        "model": "SLB9672",
        "version": "id:00100500",
        "ek_public": b"\x01EK\x00\xff",
        "ek_certificate": b"\x30\x82certificate",
        "ek_chain": (b"\x30intermediate", b"\x30\x00root"),
        "root_sha256": "ab" * 32,
        "ak_public": b"\x00AK" + bytes.fromhex(device_id)[:4],
        "ak_name": "000b" + device_id,
        "hostname": "gateway-7",
    }
    return Device(**(values | changes))


def enrolment(ak_name: str, **changes: Any) -> Enrolment:
    values: dict[str, Any] = {
        "assurance": "ek_verified",
        "ek_public": b"EK",
        "ak_public": b"new AK",
        "ak_name": ak_name,
        "hostname": "renamed-by-itself",
    }
    return Enrolment(**(values | changes))


def issued(credential_id: str, **changes: Any) -> Issued:
    values: dict[str, Any] = {
        "credential_id": credential_id,
        "attestation_id": "attestation-1",
        "device_id": ONE,
        "agent": "telemetry",
        "format": "x509-svid",
        "spiffe_id": f"spiffe://example.org/agent/telemetry/{ONE}",
        "key_thumbprint": "thumb",
        "issued_at": NOW,
        "expires_at": NOW + 600_000,
        "reset_count": 4,
        "restart_count": 1,
        "policy_name": "edge",
        "policy_version": 3,
        "root_sha256": "ab" * 32,
    }
    return Issued(**(values | changes))
