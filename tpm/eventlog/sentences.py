"""What does one event say, in a sentence?"""

from collections.abc import Callable

from tpm.errors import StructureError
from tpm.eventlog.efi.guid import GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK
from tpm.eventlog.efi.variable import parse_variable
from tpm.eventlog.events import Event, EventType, type_name
from tpm.eventlog.facts.authority import Authority
from tpm.eventlog.facts.boot import BootFacts
from tpm.eventlog.facts.firmware import BootEntry
from tpm.eventlog.facts.images import Image
from tpm.eventlog.facts.loaders import name_of, utf16
from tpm.eventlog.facts.secure_boot import Database
from tpm.eventlog.words import short, shown, subject

Said = tuple[str, bool]
"""A sentence, and whether its words were measured."""

_NAMESPACES = {GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, SHIM_LOCK}
_TAGS = {
    0x8F3B22EC: "initrd that the kernel loaded",
    0x8F3B22ED: "kernel command line as given to the kernel",
    0xF5BC582A: "loader.conf of systemd-boot",
    0x6C46F751: "device tree",
    0x49DFFE0F: "initrd of an add-on",
    0xDAC08E1A: "microcode of an add-on",
    0xD5CB7CBC: "SMBIOS system",
    0xE0D47BC8: "SMBIOS baseboard",
    0xC0B3BD23: "SMBIOS OEM strings",
    0x40010001: "Windows boot measurements",
    0x00060002: "Windows key that vouches for the log",
}
_KINDS = {
    EventType.EV_POST_CODE: "firmware code",
    EventType.EV_POST_CODE2: "firmware code",
    EventType.EV_S_CRTM_CONTENTS: "code that is trusted first",
    EventType.EV_CPU_MICROCODE: "processor microcode",
    EventType.EV_PLATFORM_CONFIG_FLAGS: "firmware settings",
    EventType.EV_TABLE_OF_DEVICES: "table of devices",
    EventType.EV_COMPACT_HASH: "platform's own measurement",
    EventType.EV_IPL_PARTITION_DATA: "partition table",
    EventType.EV_NONHOST_CODE: "code of another processor",
    EventType.EV_NONHOST_CONFIG: "settings of another processor",
    EventType.EV_NONHOST_INFO: "information of another processor",
    EventType.EV_EFI_GPT_EVENT: "partition table (GPT)",
    EventType.EV_EFI_GPT_EVENT2: "partition table (GPT)",
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB: "firmware volume",
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2: "firmware volume",
    EventType.EV_EFI_HANDOFF_TABLES: "firmware tables",
    EventType.EV_EFI_HANDOFF_TABLES2: "firmware tables",
    EventType.EV_EFI_HCRTM_EVENT: "measured by the processor before the firmware ran",
}


def sentence(facts: BootFacts) -> Callable[[Event], Said]:
    """The function that says an event, knowing the facts of its log."""
    known: dict[int, Said] = {}
    _tell_secure_boot(facts, known)
    _tell_boot(facts, known)
    mismatched = {one.event for one in facts.findings if one.code == "data_mismatch"}

    def say(event: Event) -> Said:
        text, measured = known.get(event.number) or _plain(event)
        if event.number in mismatched:
            text += "; NOT what was measured"
        return text, measured and event.number not in mismatched

    return say


def _tell_secure_boot(facts: BootFacts, known: dict[int, Said]) -> None:
    boot = facts.secure_boot
    said = {True: "Secure Boot is on", False: "Secure Boot is off", None: "SecureBoot, which is unclear"}
    for number in boot.events:
        known[number] = (said[boot.enabled], True)
    for database in boot.databases.values():
        known[database.event] = (_database(database), True)
    for authority in boot.authorities:
        known[authority.event] = (_authority(authority), True)
    for state in boot.shim_state:
        known[state.event] = (f"shim's {shown(state.name, 24)} is {shown(state.text, 64)}", True)


def _tell_boot(facts: BootFacts, known: dict[int, Said]) -> None:
    for version in facts.firmware:
        known[version.event] = (f"firmware version {shown(version.text, 48) or 'empty'}", True)
    for number in facts.boot_options.order_events:
        order = facts.boot_options.order
        listed = "unclear" if order is None else ", ".join(f"{one:04X}" for one in order[:12])
        known[number] = (f"boot order {listed}", True)
    for entry in facts.boot_options.entries:
        known[entry.event] = (_entry(entry), entry.name_measured)
    for image in facts.images:
        known[image.event] = (_image(image), False)
    for grub in facts.grub.texts:
        what = "kernel command line" if grub.labelled_kernel else "ran"
        known[grub.event] = (f"{what}: {shown(grub.text)}", True)
    for file in facts.grub.files:
        known[file.event] = (f"read {shown(file.name)}", False)
    for section in facts.uki.sections:
        known[section.events[0]] = (f"section {shown(section.name, 24)} of the kernel image", True)
        known[section.events[1]] = (f"its content, {short(section.digest)}", True)
    for line in facts.command_lines:
        if line.source == "systemd":
            known[line.event] = (f"kernel command line: {shown(line.text or '')}", True)
    for phase in facts.userspace:
        known[phase.event] = (f"measured {shown(phase.text)}", True)


def _database(database: Database) -> str:
    certificates = [subject(one) for one in database.certificates[:2]]
    names = ", ".join(shown(one, 40) for one in certificates if one)
    told = f"{database.name} with {database.entries} entries" if database.entries != 1 else f"{database.name}"
    revision = f", revision {database.revision}" if database.revision else ""
    return f"{told}{revision}{': ' + names if names else ''}"


def _authority(authority: Authority) -> str:
    if authority.certificate is not None:
        name = shown(subject(authority.certificate) or "a certificate that cannot be read", 64)
        return f"an image is vouched for by {name} ({shown(authority.source, 16)})"
    return f"an image is allowed by its hash in {shown(authority.source, 16)}"


def _entry(entry: BootEntry) -> str:
    return f"boot entry {entry.name[4:]}: {shown(entry.option.description, 64)}"


def _image(image: Image) -> str:
    where = (image.load.file or image.load.path if image.load else None) or "from memory"
    kind = "started" if image.kind == "application" else "loaded driver"
    return f"{kind} {shown(where)}, {short(image.digest)}"


def _plain(event: Event) -> Said:
    """What an event says of itself, when nothing more is known of it."""
    kind, data = event.type, event.data
    if kind == EventType.EV_NO_ACTION:
        return _no_action(event)
    if kind == EventType.EV_SEPARATOR:
        return ("error separator" if data == b"\x01\0\0\0" else "separator"), True
    if kind in (EventType.EV_ACTION, EventType.EV_EFI_ACTION):
        return shown(name_of(data)), True
    if kind == EventType.EV_EVENT_TAG:
        tag = int.from_bytes(data[:4], "little")
        return _TAGS.get(tag, f"tagged event 0x{tag:08x}"), False
    if kind == EventType.EV_IPL:
        return shown(utf16(data) if data[1:2] == b"\0" else name_of(data)), False
    if kind == EventType.USERSPACE:
        return shown(data.decode("utf-8", "replace")) + " (only its digest is known)", False
    try:
        variable = parse_variable(data)
    except StructureError:
        what = _KINDS.get(EventType(kind)) if kind in _KINDS else f"event of type {type_name(kind)}"
        return f"{what}", False
    owner = "" if variable.namespace in _NAMESPACES else ", a vendor's"
    return f"variable {shown(variable.name, 40)}{owner}", False


def _no_action(event: Event) -> Said:
    if event.data.startswith(b"StartupLocality\0") and len(event.data) == 17:
        return f"the TPM was started from locality {event.data[16]}", False
    if event.data.startswith(b"Spec ID Event"):
        return "header of the log", False
    return f"note: {shown(name_of(event.data), 40)}", False
