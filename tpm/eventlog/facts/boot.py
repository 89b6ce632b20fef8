"""What does a log prove about a boot?"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from tpm.eventlog.events import NAMES, Event, EventLog, EventType, Format, register_of
from tpm.eventlog.facts.command_line import (
    CommandLine,
    read_command_lines,
    unexplained_words,
    unread_lines,
)
from tpm.eventlog.facts.firmware import (
    BootOptions,
    FirmwareVersion,
    Smbios,
    read_boot_options,
    read_smbios,
    read_versions,
)
from tpm.eventlog.facts.images import Image, read_images
from tpm.eventlog.facts.loaders import (
    Grub,
    ShimList,
    UnifiedKernel,
    is_phase,
    read_grub,
    read_shim_lists,
    read_unified_kernel,
)
from tpm.eventlog.facts.measured import MUST_HASH, SEPARATORS, Measured, finding, measured
from tpm.eventlog.facts.secure_boot import SecureBoot, read_secure_boot
from tpm.eventlog.findings import Finding
from tpm.eventlog.replay import events_of
from tpm.eventlog.userspace import UserspaceLog

_SEPARATOR = int(EventType.EV_SEPARATOR)

HandOver = Literal["succeeded", "failed", "invoked"]

_INVOKED = b"Exit Boot Services Invocation"
_SUCCEEDED = b"Exit Boot Services Returned with Success"
_FAILED = b"Exit Boot Services Returned with Failure"


@dataclass(frozen=True, slots=True)
class Phase:
    """A text that userspace measured, such as "enter-initrd" in PCR 11 or "machine-id:…" in PCR 15."""

    text: str
    register: int
    event: int


@dataclass(frozen=True, slots=True)
class BootFacts:
    """All facts of one log, as one bank has them. Each names the events it rests on.

    They are true of the machine as far as the registers of those events replay to what its TPM quoted.
    """

    format: Format
    bank: str
    registers: frozenset[int] | None
    """Only events of these registers were believed; None: of all, for a log that nothing vouches for."""
    secure_boot: SecureBoot
    firmware: tuple[FirmwareVersion, ...]
    smbios: tuple[Smbios, ...]
    boot_options: BootOptions
    images: tuple[Image, ...]
    shim_lists: tuple[ShimList, ...]
    grub: Grub
    uki: UnifiedKernel
    command_lines: tuple[CommandLine, ...]
    userspace: tuple[Phase, ...]
    hand_over: HandOver | None
    """How the firmware's last act, ExitBootServices, went; None where the log does not tell."""
    unexplained: Mapping[int, tuple[int, ...]]
    """For PCR 7, 8, 11 and 12, the events that are none of the facts above. Type and data can be changed to
    hide what an event is, so that who relies on the *absence* of something in such a register must know
    each of these by its digest. In a confidential machine's log several PCRs share a register, and each has
    the others' events here.
    """
    findings: tuple[Finding, ...]

    @property
    def phases(self) -> tuple[str, ...]:
        """The boot phases that systemd measured into PCR 11, in their order."""
        return tuple(one.text for one in self.userspace if one.register == register_of(self.format, 11))


def read_facts(
    log: EventLog, *, bank: str, registers: frozenset[int] | None, userspace: UserspaceLog | None = None
) -> BootFacts:
    """The facts that rest on events of `registers`, which are those that replayed to a quote. Nothing raises:
    what cannot be read is no fact, and a finding where a reader would expect one.
    """
    events = events_of(log, userspace)
    evidence = measured(events, format=log.format, bank=bank, registers=registers)
    secure_boot, odd = read_secure_boot(evidence)
    grub = read_grub(evidence)
    uki = read_unified_kernel(evidence)
    lines = read_command_lines(evidence, grub, uki)
    unexplained = {
        7: secure_boot.unexplained,
        8: tuple(sorted({*grub.unexplained, *unread_lines(evidence, lines)})),
        11: uki.unexplained,
        12: unexplained_words(evidence, lines),
    }
    return BootFacts(
        log.format,
        bank,
        registers,
        secure_boot,
        read_versions(evidence),
        read_smbios(evidence),
        read_boot_options(evidence),
        read_images(evidence, secure_boot.authorities),
        read_shim_lists(evidence),
        grub,
        uki,
        lines,
        () if userspace is None else _userspace(evidence),
        _hand_over(evidence),
        MappingProxyType(unexplained),
        (*odd, *_oddities(evidence, secure_boot)),
    )


def _userspace(log: Measured) -> tuple[Phase, ...]:
    """Texts that are what was measured; of some measurements, as of a volume's key, the log only tells the
    purpose.
    """
    found = [
        event
        for events in log.registers.values()
        for event in events
        if event.type == EventType.USERSPACE and is_phase(log, event)
    ]
    return tuple(Phase(event.data.decode(), event.register, event.number) for event in sorted(found))


def _hand_over(log: Measured) -> HandOver | None:
    found: HandOver | None = None
    for event in log.at(5):
        if event.type == EventType.EV_EFI_ACTION and event.number in log.whole:
            if event.data == _INVOKED:
                found = "invoked"
            elif event.data == _SUCCEEDED:
                found = "succeeded"
            elif event.data == _FAILED:
                found = "failed"
    return found


def _oddities(log: Measured, secure_boot: SecureBoot) -> tuple[Finding, ...]:
    found: list[Finding] = []
    shim = {one.event for one in secure_boot.authorities} | {one.event for one in secure_boot.shim_state}
    for events in log.registers.values():
        separators = 0
        for event in events:
            kind = event.type
            if kind == _SEPARATOR:
                separators += 1
                found += _of_separator(event, separators)
            if kind in MUST_HASH:
                # Some of shim's authorities are one byte off and known to be.
                if event.number not in log.whole and event.number not in shim:
                    detail = "Its data is not what was measured; nothing is taken from it."
                    found.append(finding("data_mismatch", event, detail))
            elif kind not in NAMES:
                detail = f"Its type 0x{kind:08x} is not one that we know."
                found.append(finding("event_unknown", event, detail))
    if secure_boot.separator is None and log.at(7):
        detail = "Secure Boot's variables are not closed by a separator."
        found.append(Finding("separator_missing", detail, register_of(log.format, 7)))
    return tuple(sorted(found, key=lambda one: -1 if one.event is None else one.event))


def _of_separator(event: Event, count: int) -> list[Finding]:
    found = []
    if count > 1:
        detail = f"Register {event.register} has a second separator."
        found.append(finding("separator_repeated", event, detail))
    if event.data == SEPARATORS[2]:
        found.append(finding("separator_error", event, "The firmware met an error before it."))
    return found
