"""What is an event, and what do its type and register mean?

Numbers are those of the TCG PC Client Platform Firmware Profile (revision 1.06, 10.4.1) and of the UEFI
specification's confidential computing log (38.4).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

Format = Literal["sha1", "crypto-agile", "ccel"]
"""Legacy TPM 1.2 records; records with several digests; the log of a confidential machine's registers."""


class EventType(IntEnum):
    """What the writer of an event calls it. Not authenticated: whoever sends the log can change it."""

    EV_PREBOOT_CERT = 0x00
    EV_POST_CODE = 0x01
    EV_UNUSED = 0x02
    EV_NO_ACTION = 0x03
    EV_SEPARATOR = 0x04
    EV_ACTION = 0x05
    EV_EVENT_TAG = 0x06
    EV_S_CRTM_CONTENTS = 0x07
    EV_S_CRTM_VERSION = 0x08
    EV_CPU_MICROCODE = 0x09
    EV_PLATFORM_CONFIG_FLAGS = 0x0A
    EV_TABLE_OF_DEVICES = 0x0B
    EV_COMPACT_HASH = 0x0C
    EV_IPL = 0x0D
    EV_IPL_PARTITION_DATA = 0x0E
    EV_NONHOST_CODE = 0x0F
    EV_NONHOST_CONFIG = 0x10
    EV_NONHOST_INFO = 0x11
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x12
    EV_POST_CODE2 = 0x13
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EV_EFI_VARIABLE_BOOT = 0x80000002
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EV_EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EV_EFI_GPT_EVENT = 0x80000006
    EV_EFI_ACTION = 0x80000007
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EV_EFI_HANDOFF_TABLES = 0x80000009
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EV_EFI_HANDOFF_TABLES2 = 0x8000000B
    EV_EFI_VARIABLE_BOOT2 = 0x8000000C
    EV_EFI_GPT_EVENT2 = 0x8000000D
    EV_EFI_HCRTM_EVENT = 0x80000010
    EV_EFI_VARIABLE_AUTHORITY = 0x800000E0
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2
    EV_EFI_SPDM_DEVICE_POLICY = 0x800000E3
    EV_EFI_SPDM_DEVICE_AUTHORITY = 0x800000E4
    USERSPACE = 0x1_0000_0000
    """Ours, for a record of systemd's log: wider than a type of a firmware log can be."""


NAMES: dict[int, str] = {int(known): known.name for known in EventType}


def type_name(number: int) -> str:
    """The TCG's name of an event type, or its number in hexadecimal."""
    return NAMES.get(number) or f"0x{number:08x}"


class Event(NamedTuple):
    """One record. Only `digests` are authenticated, and they only as far as the register replays.

    A named tuple and no dataclass: it is as frozen, and a log has hundreds of them.
    """

    number: int
    """Its place in the log, from 0, the header of a crypto-agile log included; userspace records follow."""
    register: int
    """The PCR; in a confidential machine's log the measurement register (RTMR + 1)."""
    type: int
    digests: Mapping[str, bytes]
    """By the bank's name. Banks that the event does not extend are absent."""
    data: bytes
    """What the writer says of it; of a userspace record, its description in UTF-8."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """A whole firmware log, every byte of it accounted for."""

    format: Format
    algorithms: tuple[str, ...]
    """The banks that the log announces, in its order; one that we cannot compute is "0x0012"."""
    events: tuple[Event, ...]
    padding: int
    """Bytes of 0x00 or 0xFF after the last event, as buffers of fixed size have them."""


_CONFIDENTIAL_REGISTERS = {
    0: 1,
    1: 1,
    7: 1,
    **dict.fromkeys(range(2, 7), 2),
    **dict.fromkeys(range(8, 16), 3),
}


def register_of(format: Format, pcr: int) -> int:
    """Where a log of this format has what the firmware profile puts into this PCR (UEFI 2.10, 38.4.1).

    PCR 0 goes to the first RTMR too: what the machine's own measurement covers is not in the log.
    """
    return _CONFIDENTIAL_REGISTERS.get(pcr, pcr) if format == "ccel" else pcr
