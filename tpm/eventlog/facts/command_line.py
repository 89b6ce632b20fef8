"""With which words was the kernel started?

GRUB measures them into PCR 8. systemd-boot and systemd-stub measure the words that were given to them, as
UTF-16, into PCR 12 (before systemd 252 into PCR 8); the words built into a unified kernel image are its
section .cmdline in PCR 11. Linux's own EFI stub measures what it was given into PCR 9. Of the last two only
the digest is in the log.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

from tpm.eventlog.events import Event, EventType
from tpm.eventlog.facts.loaders import Grub, UnifiedKernel, utf16
from tpm.eventlog.facts.measured import Measured

Source = Literal["grub", "systemd", "uki", "linux"]

_LOAD_OPTIONS = 0x8F3B22ED
_SECTION = ".cmdline"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a kernel may have been started with. A policy must accept every one of them."""

    source: Source
    text: str | None
    """None: only the digest is known."""
    digest: bytes
    bank: str
    event: int

    def is_exactly(self, words: str) -> bool:
        """Was this measured, in any of the encodings in which loaders do it?

        GRUB puts the kernel's path first; it is part of what was measured, and so of `words`.
        """
        if self.text is not None:
            return self.text == words
        new = getattr(hashlib, self.bank)
        wide = words.encode("utf-16-le")
        narrow = words.encode()
        return self.digest in {new(one).digest() for one in (narrow, narrow + b"\0", wide, wide + b"\0\0")}


def read_command_lines(log: Measured, grub: Grub, uki: UnifiedKernel) -> tuple[CommandLine, ...]:
    """All of them, in the order in which they were measured."""
    found = [
        CommandLine("grub", one.text, b"", log.bank, one.event) for one in grub.texts if one.is_command_line
    ]
    found += [
        CommandLine("uki", None, one.digest, log.bank, one.events[1])
        for one in uki.sections
        if one.name == _SECTION
    ]
    for pcr in (8, 12):
        wide = [event for event in log.at(pcr) if event.data[1:2] == b"\0"]
        found += [line for event in wide if (line := _given(log, event)) is not None]
    found += _by_linux(log)
    unique = {line.event: line for line in found}
    return tuple(unique[event] for event in sorted(unique))


def unread_lines(log: Measured, lines: tuple[CommandLine, ...]) -> tuple[int, ...]:
    """Events of PCR 8 that look like a systemd loader's line and are none: GRUB's could be hidden so."""
    known = {line.event for line in lines}
    return tuple(
        event.number
        for event in log.at(8)
        if event.type == EventType.EV_IPL and event.data[1:2] == b"\0" and event.number not in known
    )


def unexplained_words(log: Measured, lines: tuple[CommandLine, ...]) -> tuple[int, ...]:
    """Events of PCR 12 that are no command line: credentials and device trees by their digest, or a line
    hidden by changing its data. Only who knows their digests can tell.
    """
    known = {line.event for line in lines}
    return tuple(
        event.number for event in log.at(12) if event.number not in known and not log.is_os_separator(event)
    )


def _by_linux(log: Measured) -> list[CommandLine]:
    """What Linux's EFI stub was given. It measures that before anything else of PCR 9; a tag that stands
    later could have been put on a file.
    """
    for event in log.at(9)[:1]:
        tag = int.from_bytes(event.data[:4], "little")
        if event.type == EventType.EV_EVENT_TAG and tag == _LOAD_OPTIONS:
            return [CommandLine("linux", None, log.digest(event), log.bank, event.number)]
    return []


def _given(log: Measured, event: Event) -> CommandLine | None:
    """The words that a boot loader was given, as UTF-16; the NUL at the end is measured by some, and logged
    by half.
    """
    data = event.data
    if event.type != EventType.EV_IPL:
        return None
    if not any(log.binds(event, content) for content in (data, data + b"\0", data.rstrip(b"\0") + b"\0")):
        return None
    return CommandLine("systemd", utf16(data), log.digest(event), log.bank, event.number)
