"""Does a real TPM open what was sealed to it, in the sealed state and in no other?"""

import hashlib
import hmac as software_hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.tpm.device.leftovers import leftovers
from tests.tpm.device.tap import Tap
from tpm.device import objects
from tpm.device.connection import Connection, LoadedKey
from tpm.device.device import Device
from tpm.device.keys import KeyBlob, loaded_from_storage, storage_key
from tpm.device.refusals import explained
from tpm.device.registers import while_registers_hold
from tpm.errors import DeviceError
from tpm.seal.duplicate import duplicate
from tpm.seal.objects import MintedKey, mint
from tpm.seal.policy import policy_pcr, start
from tpm.structures.algorithms import SHA256
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.swtpm import SoftwareTpm

_PARENTS = [("ek", "p256"), ("ek", "rsa"), ("storage", "p256"), ("storage", "rsa")]
_KINDS = ["secret-16", "secret-32", "secret-128", "ec-p256", "rsa-2048", "hmac-sha256"]
_REGISTERS = PcrSelection.of("sha256", (0, 7))
_MESSAGE = b"what is signed"


@pytest.fixture(scope="module")
def machine() -> Iterator[SoftwareTpm]:
    """A machine of this module's own, with both kinds of endorsement key, measured like a boot."""
    with SoftwareTpm(ek=("p256", "rsa")) as tpm:
        for pcr in range(8):
            tpm.extend(pcr, {"sha256": hashlib.sha256(bytes([pcr])).digest()})
        yield tpm


@contextmanager
def parent_of(device: Device, where: str, kind: str) -> Iterator[LoadedKey]:
    with (device.ek if where == "ek" else device.storage_key)(kind) as parent:
        yield parent


def sealing_digest(device: Device, registers: PcrSelection) -> bytes:
    digest = pcr_digest(registers, device.read_pcrs(registers), SHA256)
    return policy_pcr(start(SHA256), SHA256, registers, digest)


def take_in(device: Device, parent: LoadedKey, minted: MintedKey) -> KeyBlob:
    sealed = duplicate(minted, parent.public)
    return device.import_object(parent, sealed.public, sealed.duplicate, sealed.encrypted_seed)


def use(device: Device, parent: LoadedKey, minted: MintedKey, blob: KeyBlob, registers: PcrSelection) -> None:
    """Use the object in the TPM and check the outcome with what only its maker knows."""
    if minted.public.type == "keyedhash" and minted.public.scheme is None:
        assert minted.sensitive.endswith(device.unseal(parent, blob, registers))
        return
    with device.load(parent, blob) as key:
        if minted.public.type == "keyedhash":
            expected = software_hmac.digest(minted.sensitive[-32:], _MESSAGE, "sha256")
            assert device.hmac(key, _MESSAGE, registers=registers) == expected
        elif minted.public.type == "ecc":
            value = device.sign(key, _MESSAGE, registers=registers)
            signature = encode_dss_signature(int.from_bytes(value[:32]), int.from_bytes(value[32:]))
            public = minted.public.public_key()
            assert isinstance(public, ec.EllipticCurvePublicKey)
            public.verify(signature, _MESSAGE, ec.ECDSA(hashes.SHA256()))
        else:
            public = minted.public.public_key()
            assert isinstance(public, rsa.RSAPublicKey)
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
            for scheme, how in (("rsapss", pss), ("rsassa", padding.PKCS1v15())):
                value = device.sign(key, _MESSAGE, registers=registers, scheme=scheme)
                public.verify(value, _MESSAGE, how, hashes.SHA256())


@pytest.mark.parametrize(("where", "kind_of_parent"), _PARENTS)
@pytest.mark.parametrize("kind", _KINDS)
def test_every_object_opens_here_and_not_after_one_extend(
    machine: SoftwareTpm, where: str, kind_of_parent: str, kind: str
) -> None:
    with Device(machine.tcti) as device, parent_of(device, where, kind_of_parent) as parent:
        minted = mint(kind, policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
        use(device, parent, minted, blob, _REGISTERS)
        machine.extend(5, {"sha256": bytes(32)})  # Not sealed to: nothing changes.
        use(device, parent, minted, blob, _REGISTERS)
        machine.extend(7, {"sha256": bytes(32)})
        with pytest.raises(DeviceError) as caught:
            use(device, parent, minted, blob, _REGISTERS)
        assert caught.value.reason == "policy_failed"
    assert leftovers(machine) == {}


@pytest.mark.parametrize("pcrs", [(7,), tuple(range(8)), tuple(range(24))], ids=len)
@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha384", "sha512"])
def test_ks_8_one_extend_of_any_sealed_register_closes_it(
    software_tpm: SoftwareTpm, bank: str, pcrs: tuple[int, ...]
) -> None:
    registers = PcrSelection.of(bank, pcrs)
    size = hashlib.new(bank).digest_size
    with Device(software_tpm.tcti) as device, device.storage_key() as parent:
        for moved in (pcrs[0], pcrs[-1], pcrs[len(pcrs) // 2]):
            # 17 to 22 are for a measured launch: not to be extended from here.
            moved = moved if not 17 <= moved <= 22 else 16
            minted = mint("secret-32", policy_digest=sealing_digest(device, registers))
            blob = take_in(device, parent, minted)
            assert minted.sensitive.endswith(device.unseal(parent, blob, registers))
            software_tpm.extend(moved, {bank: b"\x01" * size})
            with pytest.raises(DeviceError, match="booted something else"):
                device.unseal(parent, blob, registers)


def test_ks_8_another_selection_or_bank_does_not_open_it(machine: SoftwareTpm) -> None:
    with Device(machine.tcti) as device, device.storage_key() as parent:
        minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
        device.unseal(parent, blob, _REGISTERS)
        for other in (("sha256", (0,)), ("sha256", (0, 7, 8)), ("sha384", (0, 7))):
            with pytest.raises(DeviceError) as caught:
                device.unseal(parent, blob, PcrSelection.of(*other))
            assert caught.value.reason == "policy_failed"


def test_the_state_that_was_sealed_to_opens_it_again_after_a_power_cycle(software_tpm: SoftwareTpm) -> None:
    boot = {"sha256": b"\x01" * 32}
    with Device(software_tpm.tcti) as device:
        software_tpm.extend(7, boot)
        with device.storage_key() as parent:
            minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
            blob = take_in(device, parent, minted)
        for measured, opens in ((boot, True), ({"sha256": b"\x02" * 32}, False), (boot, True)):
            software_tpm.reset()
            software_tpm.extend(7, measured)
            with device.storage_key() as parent:
                if opens:
                    assert minted.sensitive.endswith(device.unseal(parent, blob, _REGISTERS))
                else:
                    with pytest.raises(DeviceError):
                        device.unseal(parent, blob, _REGISTERS)


def test_ks_3_sealed_to_other_values_than_the_present_ones_it_opens_when_they_come(
    software_tpm: SoftwareTpm,
) -> None:
    extended = hashlib.sha256(bytes(32) + b"\x01" * 32).digest()
    registers = PcrSelection.of("sha256", (7,))
    digest = pcr_digest(registers, {"sha256": {7: extended}}, SHA256)
    minted = mint("secret-32", policy_digest=policy_pcr(start(SHA256), SHA256, registers, digest))
    with Device(software_tpm.tcti) as device, device.storage_key() as parent:
        blob = take_in(device, parent, minted)
        with pytest.raises(DeviceError):
            device.unseal(parent, blob, registers)
        software_tpm.extend(7, {"sha256": b"\x01" * 32})
        assert minted.sensitive.endswith(device.unseal(parent, blob, registers))


@pytest.mark.parametrize(("where", "kind_of_parent"), _PARENTS)
def test_another_machine_cannot_take_it_in(
    machine: SoftwareTpm, software_tpm: SoftwareTpm, where: str, kind_of_parent: str
) -> None:
    with Device(machine.tcti) as device, parent_of(device, where, kind_of_parent) as parent:
        minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
        sealed = duplicate(minted, parent.public)
        parts = (sealed.public, sealed.duplicate, sealed.encrypted_seed)
        device.import_object(parent, *parts)
    with (
        Device(software_tpm.tcti) as other,
        parent_of(other, where, kind_of_parent) as parent,
        pytest.raises(DeviceError),
    ):
        other.import_object(parent, *parts)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_damaged_part_is_refused(machine: SoftwareTpm, part: int) -> None:
    with Device(machine.tcti) as device, device.storage_key() as parent:
        minted = mint("ec-p256", policy_digest=sealing_digest(device, _REGISTERS))
        sealed = duplicate(minted, parent.public)
        parts = [sealed.public, sealed.duplicate, sealed.encrypted_seed]
        device.import_object(parent, *parts)
        for offset in range(0, len(parts[part]), 7):
            damaged = bytearray(parts[part])
            damaged[offset] ^= 0x10
            with pytest.raises(DeviceError):
                device.import_object(parent, *parts[:part], bytes(damaged), *parts[part + 1 :])
    assert leftovers(machine) == {}


@pytest.mark.parametrize("kind", ["secret-32", "ec-p256", "hmac-sha256"])
def test_an_empty_password_does_not_open_it(machine: SoftwareTpm, kind: str) -> None:
    with Device(machine.tcti) as device, device.storage_key() as parent:
        minted = mint(kind, policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
        use(device, parent, minted, blob, _REGISTERS)
    connection = Connection(machine.tcti)
    attempts = {
        "secret-32": lambda key: connection.esapi.unseal(key.handle),
        "ec-p256": lambda key: objects.sign(connection, key, _MESSAGE),
        "hmac-sha256": lambda key: objects.hmac(connection, key, _MESSAGE),
    }
    with loaded_from_storage(connection, blob, "p256") as key:
        with pytest.raises(DeviceError) as caught, explained("use the object"):
            attempts[kind](key)
        assert caught.value.reason == "policy_needed"
    connection.close()


class Moving:
    """An ESAPI whose TPM sees a register move just before its first `times` unsealings."""

    def __init__(self, esapi: Any, tpm: SoftwareTpm, times: int) -> None:
        self._esapi, self._tpm, self.times, self.asked = esapi, tpm, times, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._esapi, name)

    def unseal(self, *arguments: Any, **named: Any) -> Any:
        self.asked += 1
        if self.times:
            self.times -= 1
            self._tpm.extend(9, {"sha256": bytes(32)})
        return self._esapi.unseal(*arguments, **named)


@pytest.mark.parametrize(("times", "opens"), [(0, True), (1, True), (5, True), (99, False)])
def test_registers_that_move_meanwhile_are_tried_again_but_not_for_ever(
    software_tpm: SoftwareTpm, times: int, opens: bool
) -> None:
    with Device(software_tpm.tcti) as device, device.storage_key() as parent:
        minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
    connection = Connection(software_tpm.tcti)
    connection.esapi = Moving(connection.esapi, software_tpm, times)
    with storage_key(connection, "p256") as parent:
        if opens:
            assert minted.sensitive.endswith(objects.unseal(connection, parent, blob, _REGISTERS))
            assert connection.esapi.times == 0
        else:
            with pytest.raises(DeviceError) as caught:
                objects.unseal(connection, parent, blob, _REGISTERS)
            assert caught.value.reason == "pcr_changed"
    connection.close()
    assert leftovers(software_tpm) == {}


def test_a_policy_that_fails_is_not_tried_again(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device, device.storage_key() as parent:
        minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
    connection = Connection(software_tpm.tcti)
    connection.esapi = Moving(connection.esapi, software_tpm, 0)
    with storage_key(connection, "p256") as parent:
        assert minted.sensitive.endswith(objects.unseal(connection, parent, blob, _REGISTERS))
        software_tpm.extend(7, {"sha256": bytes(32)})
        with pytest.raises(DeviceError):
            objects.unseal(connection, parent, blob, _REGISTERS)
    assert connection.esapi.asked == 2
    connection.close()


def test_an_rsa_key_needs_a_scheme_and_an_elliptic_one_keeps_its_own(machine: SoftwareTpm) -> None:
    with Device(machine.tcti) as device, device.storage_key() as parent:
        digest = sealing_digest(device, _REGISTERS)
        for kind, scheme, reason in (
            ("rsa-2048", None, "scheme_needed"),
            ("rsa-2048", "ecdsa-nonsense", "scheme_needed"),
            ("ec-p256", "rsassa", "scheme_mismatch"),
        ):
            blob = take_in(device, parent, mint(kind, policy_digest=digest))
            with device.load(parent, blob) as key, pytest.raises(DeviceError) as caught:
                device.sign(key, _MESSAGE, registers=_REGISTERS, scheme=scheme)
            assert caught.value.reason == reason


def test_ks_5_the_secret_does_not_cross_the_wires_to_the_tpm_in_the_clear(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device, device.storage_key() as parent:
        minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
    secret = minted.sensitive[-32:]
    with Tap(software_tpm.tcti) as tap, Device(tap.tcti) as device, device.storage_key() as parent:
        assert device.unseal(parent, blob, _REGISTERS) == secret
        assert blob.private[2:] in tap.heard
        assert secret not in tap.heard


def test_ks_5_the_listener_would_have_heard_it(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device, device.storage_key() as parent:
        minted = mint("secret-32", policy_digest=sealing_digest(device, _REGISTERS))
        blob = take_in(device, parent, minted)
    with Tap(software_tpm.tcti) as tap:
        connection = Connection(tap.tcti)
        with loaded_from_storage(connection, blob, "p256") as key:
            while_registers_hold(
                connection,
                _REGISTERS,
                SHA256,
                lambda session: connection.esapi.unseal(key.handle, session1=session),
            )
        connection.close()
        assert minted.sensitive[-32:] in tap.heard
