"""Which firmware started the machine, and what did it say of the hardware?"""

import string
from dataclasses import dataclass
from typing import NamedTuple

from tpm.errors import StructureError
from tpm.eventlog.efi.boot_option import BootOption, parse_boot_option, parse_boot_order
from tpm.eventlog.efi.guid import GLOBAL_VARIABLE, SMBIOS3_TABLE, SMBIOS_TABLE, guid_text
from tpm.eventlog.efi.variable import Variable, parse_variable
from tpm.eventlog.events import Event, EventType, register_of
from tpm.eventlog.facts.measured import Measured, separator_digests

_HANDOFF = (EventType.EV_EFI_HANDOFF_TABLES, EventType.EV_EFI_HANDOFF_TABLES2)
_BOOT = (EventType.EV_EFI_VARIABLE_BOOT, EventType.EV_EFI_VARIABLE_BOOT2)
_SMBIOS_TAGS = {0xD5CB7CBC: 1, 0xE0D47BC8: 2, 0xC0B3BD23: 11}
"""systemd's tags for single SMBIOS structures: system, baseboard, OEM strings."""
_PRINTABLE = frozenset(string.printable) - frozenset("\t\n\r\x0b\x0c")


@dataclass(frozen=True, slots=True)
class FirmwareVersion:
    """The version of the code that is trusted first, as its maker writes it: a name, a GUID, or bytes in
    hex.
    """

    text: str
    event: int


@dataclass(frozen=True, slots=True)
class Smbios:
    """The machine's description of itself was measured. That it is SMBIOS is a hint; the digest is not."""

    structure: int | None
    """The structure's type (1: system); None: the whole table."""
    digest: bytes
    register: int
    event: int


class BootEntry(NamedTuple):
    """A boot option as the firmware found it."""

    name: str
    """"Boot0001"; a hint where the firmware measured the content only, see `name_measured`."""
    option: BootOption
    name_measured: bool
    event: int


@dataclass(frozen=True, slots=True)
class BootOptions:
    """In which order the firmware tries what. It was measured, but by whom is not known: some firmware
    measures it after the separator, where others can extend the register too.
    """

    order: tuple[int, ...] | None
    order_events: tuple[int, ...]
    entries: tuple[BootEntry, ...]


def read_versions(log: Measured) -> tuple[FirmwareVersion, ...]:
    """The versions in PCR 0 whose text is what was measured, before the separator: what runs later can
    extend too.
    """
    found = []
    closing = separator_digests(log.bank)
    for event in log.at(0):
        if log.digest(event) in closing:
            break
        if event.type == EventType.EV_S_CRTM_VERSION and event.number in log.whole:
            found.append(FirmwareVersion(version_text(event.data), event.number))
    return tuple(found)


def version_text(data: bytes) -> str:
    """A version as text: UTF-16, ASCII, a GUID, or else hexadecimal; "" for one of zeros."""
    if not data.strip(b"\0"):
        return ""
    wide = data.decode("utf-16-le", "replace").rstrip("\0") if len(data) % 2 == 0 else ""
    narrow = data.split(b"\0", 1)[0].decode("ascii", "replace")
    for text in (wide, narrow):
        if text and _PRINTABLE.issuperset(text):
            return text.strip()
    return guid_text(data) if len(data) == 16 else data.hex()


def read_smbios(log: Measured) -> tuple[Smbios, ...]:
    """The digests of SMBIOS tables and structures in PCR 1."""
    found = []
    for event in log.at(1):
        structure = _structure(event)
        if structure != -1:
            found.append(Smbios(structure, log.digest(event), event.register, event.number))
    return tuple(found)


def _structure(event: Event) -> int | None:
    """The SMBIOS structure that an event measures, None for the table, -1 for neither."""
    if event.type in _HANDOFF and (SMBIOS_TABLE in event.data or SMBIOS3_TABLE in event.data):
        return None
    if event.type == EventType.EV_EVENT_TAG:
        return _SMBIOS_TAGS.get(int.from_bytes(event.data[:4], "little"), -1)
    return -1


def read_boot_options(log: Measured) -> BootOptions:
    """Boot order and entries. They stand in PCR 1, or in PCR 5 as the firmware profile had it before 2.0."""
    orders: list[tuple[tuple[int, ...], int]] = []
    entries = []
    registers = dict.fromkeys(register_of(log.format, pcr) for pcr in (1, 5))
    for event in (event for register in registers for event in log.registers.get(register, ())):
        if event.type not in _BOOT:
            continue
        variable = _boot_variable(log, event)
        if variable is None:
            continue
        try:
            if variable.name == "BootOrder":
                orders.append((parse_boot_order(variable.data), event.number))
            elif _is_option(variable.name):
                option = parse_boot_option(variable.data)
                whole = event.number in log.whole
                entries.append(BootEntry(variable.name, option, whole, event.number))
        except StructureError:
            continue
    same = len({order for order, _ in orders}) == 1
    return BootOptions(orders[0][0] if same else None, tuple(number for _, number in orders), tuple(entries))


def _boot_variable(log: Measured, event: Event) -> Variable | None:
    """The variable, if at least its content is what was measured: EDK II measures no more of it."""
    try:
        variable = parse_variable(event.data)
    except StructureError:
        return None
    if variable.namespace != GLOBAL_VARIABLE:
        return None
    if event.number in log.whole or log.binds(event, variable.data):
        return variable
    return None


def _is_option(name: str) -> bool:
    return len(name) == 8 and name.startswith("Boot") and set(name[4:]) <= set("0123456789ABCDEF")
