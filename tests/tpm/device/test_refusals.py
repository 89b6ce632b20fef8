"""Is a refusal told in a word and in a sentence with the next step?"""

import struct

import pytest

from tpm.device.device import Device
from tpm.device.refusals import device_error
from tpm.errors import DeviceError
from tpm.structures.pcrs import PcrSelection
from tpm.swtpm import SoftwareTpm


@pytest.mark.parametrize(
    "tcti", ["swtpm:path=/nowhere/tpm", "device:/dev/no-such-tpm", "nonsense:", "nonsense"]
)
def test_a_tpm_that_is_not_there_is_unreachable(tcti: str) -> None:
    with pytest.raises(DeviceError, match="user open it") as caught, Device(tcti):
        pass
    assert caught.value.reason == "tpm_unreachable"
    assert tcti in caught.value.detail


def test_a_tpm_that_ended_meanwhile_is_unreachable() -> None:
    with SoftwareTpm() as tpm:
        device = Device(tpm.tcti).__enter__()
    with pytest.raises(DeviceError) as caught:
        device.properties()
    assert caught.value.reason == "tpm_unreachable"
    device.__exit__(None, None, None)


def test_a_device_is_open_inside_its_context_only(shared_tpm: SoftwareTpm) -> None:
    device = Device(shared_tpm.tcti)
    with pytest.raises(DeviceError, match="inside"):
        device.banks()
    with device:
        assert device.banks()
    with pytest.raises(DeviceError) as caught:
        device.banks()
    assert caught.value.reason == "tpm_not_open"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0x00000921, "tpm_lockout"),
        (0x000B0921, "tpm_lockout"),
        (0x000C0921, "tpm_lockout"),
        (0x00000902, "tpm_full"),
        (0x00000128, "pcr_changed"),
        (0x0000099D, "policy_failed"),
        (0x000001DF, "wrong_parent"),
        (0x0000098E, "auth_needed"),
        (0x000009A2, "auth_needed"),
        (0x0000018B, "tpm_no_object"),
        (0x00000185, "hierarchy_disabled"),
        (0x00000100, "tpm_not_started"),
        (0x000A000A, "tpm_unreachable"),
        (0x00070001, "tpm_refused"),
        (0x00000999, "tpm_refused"),
    ],
)
def test_each_answer_has_its_word_whoever_passed_it_on(code: int, reason: str) -> None:
    error = device_error("do it", code, "the library's words")
    assert error.reason == reason
    assert error.detail.startswith("The TPM did not do it: ")


def test_an_owners_password_is_told_as_such(software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device:
        with device.storage_key():
            pass
        # TPM2_HierarchyChangeAuth of the owner.
        software_tpm.execute(0x129, (0x40000001,), struct.pack(">H", 2) + b"pw")
        with pytest.raises(DeviceError, match="uses empty ones") as caught, device.storage_key():
            pass
    assert caught.value.reason == "auth_needed"


def test_a_full_tpm_points_to_the_resource_manager(software_tpm: SoftwareTpm) -> None:
    with (
        Device(software_tpm.tcti) as device,
        device.storage_key(),
        device.storage_key(),
        device.storage_key(),
        pytest.raises(DeviceError, match="tpmrm0") as caught,
        device.storage_key(),
    ):
        pass
    assert caught.value.reason == "tpm_full"


def test_a_bank_that_the_tpm_has_not_is_named(software_tpm: SoftwareTpm) -> None:
    # TPM2_PCR_Allocate: SHA-256 alone after the next power cycle.
    banks = struct.pack(">I", 4)
    for algorithm, bitmap in ((0x0004, 0), (0x000B, 0xFFFFFF), (0x000C, 0), (0x000D, 0)):
        banks += struct.pack(">HB", algorithm, 3) + bitmap.to_bytes(3, "little")
    software_tpm.execute(0x12B, (0x4000000C,), banks)
    software_tpm.reset()
    with Device(software_tpm.tcti) as device:
        assert device.banks() == ("sha256",)
        with pytest.raises(DeviceError, match="sha384") as caught:
            device.read_pcrs(PcrSelection.of("sha384", (0,)))
        assert caught.value.reason == "pcr_missing"
        with device.ak(device.create_ak()) as ak:
            device.quote(ak, PcrSelection.of("sha256", (0,)), b"n")
            with pytest.raises(DeviceError):
                device.quote(ak, PcrSelection.of("sha384", (0,)), b"n")
