"""Is what a TPM signs for us what the verifying half accepts?"""

import hashlib
import itertools
from typing import Any

import pytest

from tests.tpm.device.leftovers import leftovers
from tpm.device import evidence, registers
from tpm.device.connection import Connection
from tpm.device.device import Device
from tpm.device.keys import KeyBlob, attestation_key, attestation_public, create_attestation_key
from tpm.errors import DeviceError, EvidenceError
from tpm.seal.credential import make_credential
from tpm.structures.algorithms import SHA256, SHA384
from tpm.structures.attest import parse_certification, parse_quote
from tpm.structures.attributes import AK_ATTRIBUTES, CREDENTIAL_KEY_ATTRIBUTES, NO_DA
from tpm.structures.pcrs import PcrSelection
from tpm.structures.public import qualified_name
from tpm.structures.signature import parse_signature
from tpm.swtpm import SoftwareTpm
from tpm.verify.certified import verify_certified_key, verify_key_proof
from tpm.verify.keys import accept_attestation_key, expected_signers
from tpm.verify.pcrs import verify_pcrs
from tpm.verify.quote import verify_quote

_REQUEST = b'{"v": 1, "purpose": "attest"}'
_BINDING = hashlib.sha256(_REQUEST).digest()
_SELECTION = PcrSelection.of("sha256", range(24))
_AKS = ["p256", "p384", "rsa", "rsapss"]


@pytest.mark.parametrize("kind", _AKS)
@pytest.mark.parametrize("bank", ["sha256", "sha384", "sha512"])
def test_a_quote_by_every_kind_of_key_over_every_bank_verifies(device: Device, kind: str, bank: str) -> None:
    selection = PcrSelection.of(bank, (0, 7, 11))
    recipe = device.create_ak(kind)
    with device.ak(recipe) as ak:
        taken = device.quote(ak, selection, _BINDING)
    accepted = accept_attestation_key(ak.public)
    signers = expected_signers(accepted, device.endorsement().public)
    verified = verify_quote(
        parse_quote(taken.attest),
        parse_signature(taken.signature),
        ak=accepted,
        expected_extra_data=_BINDING,
        expected_signers=signers,
    )
    assert verified.quote.selection.raw == selection.raw
    assert dict(verify_pcrs(verified, taken.pcrs, hash=accepted.hash).values) == taken.pcrs[bank]
    assert set(taken.pcrs[bank]) == {0, 7, 11}


def test_ag_7_attestation_keys_are_in_the_endorsement_hierarchy_alone(device: Device) -> None:
    with device.ak(device.create_ak()) as ak:
        signer = parse_quote(device.quote(ak, _SELECTION, _BINDING).attest).qualified_signer
    assert signer == qualified_name(bytes.fromhex("4000000b"), ak.name)
    assert signer != qualified_name(bytes.fromhex("40000001"), ak.name)


def test_an_attestation_key_has_exactly_the_attributes_that_the_verifier_accepts(device: Device) -> None:
    for kind in _AKS:
        public = attestation_public(device.create_ak(kind))
        assert public.attributes == AK_ATTRIBUTES | NO_DA
        assert accept_attestation_key(public).public == public


def test_each_new_attestation_key_is_another_and_each_comes_back(device: Device) -> None:
    recipes = [device.create_ak() for _ in range(3)]
    names = []
    for recipe in recipes + recipes:
        with device.ak(recipe) as ak:
            names.append(ak.name)
            assert ak.public == attestation_public(recipe)
    assert names[:3] == names[3:]
    assert len(set(names)) == 3


def test_an_attestation_key_survives_a_power_cycle(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device:
        recipe = device.create_ak()
    software_tpm.reset()
    with Device(software_tpm.tcti) as device, device.ak(recipe) as ak:
        device.quote(ak, _SELECTION, _BINDING)


def test_another_machine_does_not_make_the_attestation_key(device: Device, software_tpm: SoftwareTpm) -> None:
    recipe = device.create_ak()
    stranger = pytest.raises(DeviceError, match="Enrol again")
    with Device(software_tpm.tcti) as other, stranger as caught, other.ak(recipe):
        pass
    assert caught.value.reason == "ak_changed"


@pytest.mark.parametrize("damage", ["empty", "cut", "long", "noise"])
def test_a_damaged_recipe_says_so(device: Device, damage: str) -> None:
    recipe = device.create_ak()
    with device.ak(recipe):
        pass
    damaged = {"empty": b"", "cut": recipe[:-1], "long": recipe + b"\0", "noise": b"\x01" * len(recipe)}
    with pytest.raises(DeviceError) as caught, device.ak(damaged[damage]):
        pass
    assert caught.value.reason == "recipe_damaged"


def test_an_unknown_kind_of_key_is_refused_by_name(device: Device) -> None:
    for create in (device.create_ak, device.create_key):
        with pytest.raises(DeviceError) as caught:
            create("ed25519")
        assert caught.value.reason == "unknown_kind"
    with pytest.raises(DeviceError), device.storage_key("p384"):
        pass


@pytest.mark.parametrize(("kind", "alg"), [("p256", "ES256"), ("p384", "ES384"), ("rsapss", "PS256")])
def test_a_credential_key_is_certified_and_its_proof_verifies(device: Device, kind: str, alg: str) -> None:
    blob = device.create_key(kind)
    with device.ak(device.create_ak()) as ak, device.key(blob) as key:
        certified = device.certify(key, ak, _BINDING)
        proof = device.sign(key, _REQUEST)
    assert blob.area.attributes == CREDENTIAL_KEY_ATTRIBUTES | NO_DA
    accepted = accept_attestation_key(ak.public)
    verified = verify_certified_key(
        parse_certification(certified.attest),
        parse_signature(certified.signature),
        blob.area,
        ak=accepted,
        expected_extra_data=_BINDING,
        expected_signers=expected_signers(accepted, device.endorsement().public),
    )
    assert (verified.role, verified.alg, certified.public) == ("signing", alg, blob.public)
    verify_key_proof(verified, proof, message=_REQUEST)
    with pytest.raises(EvidenceError):
        verify_key_proof(verified, proof, message=_REQUEST + b" ")


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_ks_7_a_storage_key_is_certified_as_a_parent(device: Device, kind: str) -> None:
    with device.ak(device.create_ak()) as ak, device.storage_key(kind) as parent:
        certified = device.certify(parent, ak, _BINDING)
    accepted = accept_attestation_key(ak.public)
    verified = verify_certified_key(
        parse_certification(certified.attest),
        parse_signature(certified.signature),
        parent.public,
        ak=accepted,
        expected_extra_data=_BINDING,
        expected_signers=expected_signers(accepted, device.endorsement().public),
    )
    assert (verified.role, verified.alg) == ("parent", None)


def test_the_storage_key_is_the_same_each_time(device: Device) -> None:
    for kind in ("p256", "rsa"):
        names = set()
        for _ in range(2):
            with device.storage_key(kind) as key:
                names.add(key.name)
        assert len(names) == 1


def test_a_credential_key_of_another_machine_does_not_load(device: Device, software_tpm: SoftwareTpm) -> None:
    blob = device.create_key()
    with device.key(blob) as key:
        device.sign(key, _REQUEST)
    with Device(software_tpm.tcti) as other, pytest.raises(DeviceError) as caught, other.key(blob):
        pass
    assert caught.value.reason == "wrong_parent"


def test_a_damaged_credential_key_does_not_load(device: Device) -> None:
    blob = device.create_key()
    with device.key(blob):
        pass
    for damaged in (
        KeyBlob(blob.public, blob.private[:-1] + bytes([blob.private[-1] ^ 1])),
        KeyBlob(blob.public, b""),
        KeyBlob(blob.public[:-1] + bytes([blob.public[-1] ^ 1]), blob.private),
    ):
        with pytest.raises(DeviceError), device.key(damaged):
            pass


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_ac_2_a_credential_for_another_key_or_machine_is_not_opened(
    device: Device, software_tpm: SoftwareTpm, kind: str
) -> None:
    with device.ak(device.create_ak()) as ak, device.ek(kind) as ek:
        good = make_credential(ek.public, ak.name, b"s" * 32)
        assert device.activate(ek, ak, good.id_object, good.encrypted_secret) == b"s" * 32
        other_name = make_credential(ek.public, b"\x00\x0b" + bytes(32), b"s" * 32)
        with Device(software_tpm.tcti) as other:
            elsewhere = make_credential(other.endorsement(kind).public, ak.name, b"s" * 32)
        for challenge in (other_name, elsewhere):
            with pytest.raises(DeviceError):
                device.activate(ek, ak, challenge.id_object, challenge.encrypted_secret)


def test_registers_are_read_by_bank_and_number(software_tpm: SoftwareTpm) -> None:
    software_tpm.extend(3, {"sha256": b"\x01" * 32, "sha384": b"\x02" * 48})
    with Device(software_tpm.tcti) as device:
        assert device.banks() == ("sha1", "sha256", "sha384", "sha512")
        values = device.read_pcrs(_SELECTION)["sha256"]
        assert list(values) == list(range(24))
        assert values[3] == hashlib.sha256(bytes(32) + b"\x01" * 32).digest()
        assert values[17] == b"\xff" * 32
        other = device.read_pcrs(PcrSelection.of("sha384", (3,)))
        assert other == {"sha384": {3: hashlib.sha384(bytes(48) + b"\x02" * 48).digest()}}


class Moving:
    """An ESAPI whose TPM sees a register move before some of its commands."""

    def __init__(self, esapi: Any, tpm: SoftwareTpm, before: str, when: Any) -> None:
        self._esapi, self._tpm, self._before, self._when = esapi, tpm, before, iter(when)

    def __getattr__(self, name: str) -> Any:
        if name == self._before and next(self._when, False):
            self._tpm.extend(7, {"sha256": bytes(32)})
        return getattr(self._esapi, name)


@pytest.mark.parametrize("when", [(), (True,), (True, True), (False, True), (True, False, True)])
@pytest.mark.parametrize("before", ["quote", "pcr_read"])
def test_a_quote_and_its_values_belong_together_when_registers_move(
    software_tpm: SoftwareTpm, before: str, when: tuple[bool, ...]
) -> None:
    with Device(software_tpm.tcti) as device:
        recipe, ek = device.create_ak(), device.endorsement().public
    connection = Connection(software_tpm.tcti)
    connection.esapi = Moving(connection.esapi, software_tpm, before, when)
    with attestation_key(connection, recipe) as ak:
        taken = evidence.quote(connection, ak, _SELECTION, _BINDING)
    connection.close()
    accepted = accept_attestation_key(ak.public)
    quote = verify_quote(
        parse_quote(taken.attest),
        parse_signature(taken.signature),
        ak=accepted,
        expected_extra_data=_BINDING,
        expected_signers=expected_signers(accepted, ek),
    )
    verify_pcrs(quote, taken.pcrs, hash=SHA256)


def test_registers_that_never_rest_are_reported(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device:
        recipe = device.create_ak()
    connection = Connection(software_tpm.tcti)
    connection.esapi = Moving(connection.esapi, software_tpm, "pcr_read", itertools.repeat(True))
    with attestation_key(connection, recipe) as ak:
        for read in (
            lambda: registers.read_registers(connection, _SELECTION),
            lambda: evidence.quote(connection, ak, _SELECTION, _BINDING),
        ):
            with pytest.raises(DeviceError) as caught:
                read()
            assert caught.value.reason == "pcr_unstable"
    connection.close()
    assert leftovers(software_tpm) == {}


def test_quotes_that_never_match_are_reported(software_tpm: SoftwareTpm) -> None:
    # Eight registers fit into one reading, so each reading is at rest, and each quote is between two others.
    few = PcrSelection.of("sha256", range(8))
    with Device(software_tpm.tcti) as device:
        recipe = device.create_ak()
    connection = Connection(software_tpm.tcti)
    connection.esapi = Moving(connection.esapi, software_tpm, "quote", itertools.repeat(True))
    connection.esapi = Moving(connection.esapi, software_tpm, "pcr_read", itertools.repeat(True))
    with attestation_key(connection, recipe) as ak, pytest.raises(DeviceError) as caught:
        evidence.quote(connection, ak, few, _BINDING)
    assert caught.value.reason == "pcr_unstable"
    connection.close()


class Selective:
    """An ESAPI whose TPM quotes one register, whatever it is asked."""

    def __init__(self, esapi: Any) -> None:
        self._esapi = esapi

    def __getattr__(self, name: str) -> Any:
        return getattr(self._esapi, name)

    def quote(self, key: Any, _selection: Any, *arguments: Any) -> Any:
        return self._esapi.quote(key, "sha256:0", *arguments)


def test_a_quote_over_other_registers_than_asked_is_not_passed_on(software_tpm: SoftwareTpm) -> None:
    connection = Connection(software_tpm.tcti)
    recipe = create_attestation_key(connection, "p256")
    with attestation_key(connection, recipe) as ak:
        evidence.quote(connection, ak, _SELECTION, _BINDING)
        connection.esapi = Selective(connection.esapi)
        evidence.quote(connection, ak, PcrSelection.of("sha256", (0,)), _BINDING)
        with pytest.raises(DeviceError, match="fewer registers"):
            evidence.quote(connection, ak, _SELECTION, _BINDING)
    connection.close()


def test_what_the_tpm_says_of_itself(device: Device) -> None:
    said = device.properties()
    assert (said.manufacturer, said.vendor, said.in_lockout) == ("IBM", "SW TPM", False)
    with device.ak(device.create_ak()) as ak:
        assert parse_quote(device.quote(ak, _SELECTION, b"").attest).firmware_version == said.firmware_version


def test_a_quote_by_a_sha384_key_digests_with_sha384(device: Device) -> None:
    with device.ak(device.create_ak("p384")) as ak:
        taken = device.quote(ak, _SELECTION, _BINDING)
    assert parse_signature(taken.signature).hash == SHA384
    assert len(parse_quote(taken.attest).pcr_digest) == 48
