"""Does the device leave the TPM as it found it, whatever happens?"""

import struct

import pytest

from tests.tpm.device.leftovers import leftovers
from tpm.device.device import Device
from tpm.errors import DeviceError
from tpm.seal.credential import make_credential
from tpm.seal.duplicate import duplicate
from tpm.seal.objects import mint
from tpm.seal.policy import policy_pcr, start
from tpm.structures.algorithms import SHA256
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.swtpm import SoftwareTpm

_REGISTERS = PcrSelection.of("sha256", (0, 7))
_CYCLES = 200


def use_everything(device: Device, kind: str = "p256", *, under_ek: bool = True) -> None:
    """Each method once, with the parent of this kind."""
    recipe, key = device.create_ak(), device.create_key()
    endorsement = device.endorsement(kind)
    with device.ak(recipe) as ak:
        device.quote(ak, _REGISTERS, b"n" * 32)
        challenge = make_credential(endorsement.public, ak.name, b"s" * 32)
        with device.ek(kind) as ek:
            opened = device.activate(ek, ak, challenge.id_object, challenge.encrypted_secret)
            assert opened == b"s" * 32
        with device.key(key) as loaded:
            device.certify(loaded, ak, b"q" * 32)
            device.sign(loaded, b"message")
    values = device.read_pcrs(_REGISTERS)
    digest = policy_pcr(start(SHA256), SHA256, _REGISTERS, pcr_digest(_REGISTERS, values, SHA256))
    minted, signer = mint("secret-32", policy_digest=digest), mint("hmac-sha256", policy_digest=digest)
    with (device.ek if under_ek else device.storage_key)(kind) as parent:
        sealed, other = duplicate(minted, parent.public), duplicate(signer, parent.public)
        blob = device.import_object(parent, sealed.public, sealed.duplicate, sealed.encrypted_seed)
        assert minted.sensitive.endswith(device.unseal(parent, blob, _REGISTERS))
        blob = device.import_object(parent, other.public, other.duplicate, other.encrypted_seed)
        with device.load(parent, blob) as loaded:
            device.hmac(loaded, b"message", registers=_REGISTERS)
    device.properties(), device.banks()


def fail_at_everything(device: Device) -> int:
    """Each method refused by the TPM; returns how many were."""
    recipe, key = device.create_ak(), device.create_key()
    refused = 0
    with device.ak(recipe) as ak, device.ek("p256") as ek:
        strange = make_credential(ek.public, b"\x00\x0b" + bytes(32), b"s" * 32)
        minted = mint("secret-32", policy_digest=b"\x01" * 32)
        attempts = [
            lambda: device.activate(ek, ak, strange.id_object, strange.encrypted_secret),
            lambda: device.activate(ek, ak, b"\0\0", b"\0\0"),
            lambda: device.import_object(ek, minted.public.sized, b"\x00\x02ab", b"\x00\x02ab"),
            lambda: device.load(ek, key).__enter__(),
            lambda: device.sign(ak, b"message"),
            lambda: device.quote(ek, _REGISTERS, b""),
            lambda: device.certify(ek, ak, b""),
            lambda: device.quote(ak, _REGISTERS, b"x" * 65),
        ]
        for attempt in attempts:
            with pytest.raises(DeviceError):
                attempt()
            refused += 1
        sealed = duplicate(minted, ek.public)
        blob = device.import_object(ek, sealed.public, sealed.duplicate, sealed.encrypted_seed)
        with pytest.raises(DeviceError):
            device.unseal(ek, blob, _REGISTERS)
    return refused + 1


def test_ag_7_hundreds_of_cycles_leave_no_handle(shared_tpm: SoftwareTpm) -> None:
    with Device(shared_tpm.tcti) as device:
        for cycle in range(_CYCLES):
            use_everything(device, "p256" if cycle % 8 else "rsa", under_ek=bool(cycle % 2))
            if cycle % 50 == 0:
                assert leftovers(shared_tpm) == {}
        assert leftovers(shared_tpm) == {}


def test_ag_7_refusals_leave_no_handle(shared_tpm: SoftwareTpm) -> None:
    with Device(shared_tpm.tcti) as device:
        for _ in range(40):
            assert fail_at_everything(device) == 9
            assert leftovers(shared_tpm) == {}


def test_ag_7_an_error_in_the_callers_code_leaves_no_handle(shared_tpm: SoftwareTpm) -> None:
    with Device(shared_tpm.tcti) as device:
        recipe = device.create_ak()
        for _ in range(5):
            with pytest.raises(InterruptedError), device.ak(recipe), device.storage_key(), device.ek("p256"):
                raise InterruptedError
        assert leftovers(shared_tpm) == {}


def test_an_object_in_use_does_show(shared_tpm: SoftwareTpm) -> None:
    with Device(shared_tpm.tcti) as device, device.storage_key():
        assert len(leftovers(shared_tpm)["transient"]) == 1


def test_ag_7_no_use_counts_as_a_wrong_password(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device:
        for _ in range(3):
            use_everything(device)
            fail_at_everything(device)
    assert _lockout_counter(software_tpm) == 0


def test_ag_7_a_tpm_that_others_locked_out_still_attests(software_tpm: SoftwareTpm) -> None:
    _lock_out(software_tpm)
    with Device(software_tpm.tcti) as device:
        assert device.properties().in_lockout
        use_everything(device)
    assert leftovers(software_tpm) == {}


def test_ag_7_power_lost_in_between_is_an_error_and_not_the_end(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device:
        recipe = device.create_ak()
        with device.ak(recipe) as ak:
            software_tpm.reset()
            with pytest.raises(DeviceError):
                device.quote(ak, _REGISTERS, b"n")
        use_everything(device)
        with device.ak(recipe) as ak:
            device.quote(ak, _REGISTERS, b"n")
    assert leftovers(software_tpm) == {}


def _lockout_counter(tpm: SoftwareTpm) -> int:
    """TPM_PT_LOCKOUT_COUNTER."""
    answer = tpm.execute(0x17A, (), struct.pack(">III", 6, 0x20E, 1), authorized=False)
    number, value = struct.unpack_from(">II", answer, 9)
    assert number == 0x20E
    return int(value)


def _lock_out(tpm: SoftwareTpm) -> None:
    """No wrong password is allowed from now on (TPM2_DictionaryAttackParameters), and one is given."""
    tpm.execute(0x13A, (0x4000000A,), struct.pack(">III", 1, 10000, 10000))
    # A sealed object with a password and without noDA, under a new storage key.
    sensitive = struct.pack(">H", 4 + 4) + struct.pack(">H", 2) + b"pw" + struct.pack(">H", 2) + b"xx"
    public = struct.pack(">HHIHHH", 0x0008, 0x000B, 0x00000052, 0, 0x0010, 0)
    rest = struct.pack(">H", len(public)) + public + struct.pack(">HI", 0, 0)
    answer = tpm.execute(0x131, (0x40000001,), sensitive + rest)
    (handle,) = struct.unpack_from(">I", answer)
    # The first answer is only that the TPM is to count from now on (TPM_RC_RETRY).
    for _ in range(2):
        with pytest.raises(DeviceError):
            tpm.execute(0x15E, (handle,))
    tpm.execute(0x165, (), struct.pack(">I", handle), authorized=False)
