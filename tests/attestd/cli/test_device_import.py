"""An inventory is imported whole or not at all, and names machines by what only they can prove."""

import base64
import datetime
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.attestd.cli.operator import DEVICE, OTHER, Operator

GOOD = {"device_id": DEVICE, "name": "gw-1", "labels": {"site": "plant-1"}}


def lines(*objects: object) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def certificate() -> tuple[x509.Certificate, str]:
    """A certificate and the identifier of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    start = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, start, start + datetime.timedelta(days=9)
    )
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return builder.sign(key, hashes.SHA256()), hashlib.sha256(spki).hexdigest()


def test_imported_machines_are_known_active_named_and_labelled(operator: Operator) -> None:
    path = operator.write("inventory", lines(GOOD) + "\n" + lines({"device_id": OTHER}))
    assert operator.done("device", "import", path).startswith("2 imported")
    device, other = operator.device(), operator.device(OTHER)
    assert (device.state, device.name, device.labels) == ("active", "gw-1", {"site": "plant-1"})
    assert (other.state, other.name, other.labels) == ("active", OTHER[:12], {})
    assert device.ak_public is None
    records = [record for record in operator.admin_records() if record["device_id"] == DEVICE]
    assert records[0]["details"]["verb"] == "device import"


def test_a_name_that_the_store_would_make_up_goes_to_who_was_given_it(operator: Operator) -> None:
    first, second = {"device_id": DEVICE}, {"device_id": OTHER, "name": DEVICE[:12]}
    operator.done("device", "import", operator.write("inventory", lines(first, second)))
    assert operator.device(OTHER).name == DEVICE[:12]
    assert operator.device().name == DEVICE[:13]


def test_a_machine_is_named_by_its_ek_certificate_in_der_or_pem(operator: Operator) -> None:
    (one, one_id), (two, two_id) = certificate(), certificate()
    der = base64.b64encode(one.public_bytes(Encoding.DER)).decode()
    pem = two.public_bytes(Encoding.PEM).decode()
    path = operator.write(
        "inventory", lines({"ek_certificate": der, "name": "a"}, {"ek_certificate": pem, "name": "b"})
    )
    operator.done("device", "import", path)
    assert (operator.device(one_id).name, operator.device(two_id).name) == ("a", "b")


BAD = [
    {},
    {"name": "gw-2"},
    {"device_id": OTHER, "ek_certificate": "AAAA"},
    {"device_id": OTHER.upper()},
    {"device_id": OTHER[:-1]},
    {"device_id": OTHER + "\n"},
    {"device_id": 5},
    {"ek_certificate": "AAAA"},
    {"ek_certificate": "not base64"},
    {"ek_certificate": []},
    {"device_id": OTHER, "name": "a/b"},
    {"device_id": OTHER, "name": "f" * 64},
    {"device_id": OTHER, "name": 5},
    {"device_id": OTHER, "labels": []},
    {"device_id": OTHER, "labels": {"site": 5}},
    {"device_id": OTHER, "labels": {"site": "plant-*"}},
    {"device_id": OTHER, "labels": {"site": ""}},
    {"device_id": OTHER, "labels": {"a/b": "c"}},
    {"device_id": OTHER, "state": "active"},
    {"device_id": DEVICE},
    {"device_id": OTHER, "name": "gw-1"},
    [],
    None,
    5,
]


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_line_refuses_the_whole_inventory_and_is_named(operator: Operator, bad: object) -> None:
    path = operator.write("inventory", lines(GOOD, bad))
    assert "nothing imported: line 2: " in operator.refused("device", "import", path)
    assert operator.objects("device", "list") == []
    operator.done("device", "import", operator.write("inventory", lines(GOOD)))


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff",
        b'{"device_id": NaN}',
        b'{"name": "a", "name": "b"}',
        b'{"name": "\\ud800"}',
        b"[" * 9999,
    ],
)
def test_pd_2_a_line_that_is_not_one_json_object_is_refused(operator: Operator, raw: bytes) -> None:
    operator.refused("device", "import", operator.write("inventory", lines(GOOD).encode() + raw))
    assert operator.objects("device", "list") == []


def test_an_identifier_beside_a_certificate_is_refused(operator: Operator) -> None:
    one, device_id = certificate()
    both = {
        "device_id": device_id,
        "ek_certificate": base64.b64encode(one.public_bytes(Encoding.DER)).decode(),
    }
    assert "one of the two" in operator.refused("device", "import", operator.write("inventory", lines(both)))
    del both["device_id"]
    operator.done("device", "import", operator.write("inventory", lines(both)))


def test_what_is_known_already_is_not_imported_again(operator: Operator) -> None:
    path = operator.write("inventory", lines(GOOD))
    operator.done("device", "import", path)
    assert "known already" in operator.refused("device", "import", path)
    taken = operator.write("inventory", lines({"device_id": OTHER, "name": "gw-1"}))
    assert "another device's name" in operator.refused("device", "import", taken)


def test_an_empty_inventory_and_one_that_cannot_be_read_are_refused(operator: Operator) -> None:
    operator.refused("device", "import", operator.write("inventory", "\n\n"))
    operator.refused("device", "import", str(operator.directory / "absent"), status=2)
