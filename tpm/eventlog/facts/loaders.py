"""What did shim, GRUB and systemd-stub measure?

shim: its key lists into PCR 14, by digest. GRUB: each command into PCR 8, the digest over the text behind a
label in the event's data; each file into PCR 9, by digest. systemd-stub: into PCR 11, for each section of a
unified kernel image, first its name with a NUL and then its content (UAPI.5).
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from tpm.eventlog.events import Event, EventType
from tpm.eventlog.facts.measured import Measured, separator_digests

_LABELLED = re.compile(rb"(grub_cmd|kernel_cmdline|module_cmdline|grub_kernel_cmdline):? ([^\0]*)", re.DOTALL)
"""A label of GRUB's, which is not measured, and the text behind it, which is."""

_KERNEL_LABELS = (b"kernel_cmdline", b"grub_kernel_cmdline")
_IPL = int(EventType.EV_IPL)


@dataclass(frozen=True, slots=True)
class ShimList:
    """One of shim's variables in PCR 14."""

    name: str
    """A hint, such as "MokList"."""
    digest: bytes
    event: int


class GrubText(NamedTuple):
    """Something that GRUB ran or gave to a kernel. The text was measured; what it was for, by its label,
    was not.
    """

    text: str
    labelled_kernel: bool
    event: int

    @property
    def is_command_line(self) -> bool:
        """May it be what a kernel was given? By its label, or because it begins with a path as no command
        does.

        Whoever relabels the true one does not hide it so.
        """
        return self.labelled_kernel or self.text.startswith(("/", "(", "\\"))


class GrubFile(NamedTuple):
    """A file that GRUB read."""

    name: str
    """A hint."""
    digest: bytes
    event: int


@dataclass(frozen=True, slots=True)
class Grub:
    """What GRUB did."""

    texts: tuple[GrubText, ...]
    files: tuple[GrubFile, ...]
    unexplained: tuple[int, ...]
    """Events of PCR 8 whose text is not what was measured. While there are some, nobody knows all that GRUB
    did.
    """


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the unified kernel image. Name and content were measured."""

    name: str
    digest: bytes
    """Of the content."""
    events: tuple[int, int]


@dataclass(frozen=True, slots=True)
class UnifiedKernel:
    """What systemd-stub measured of its image."""

    sections: tuple[Section, ...]
    unexplained: tuple[int, ...]
    """The firmware's events of PCR 11 that are no such pair."""


def read_shim_lists(log: Measured) -> tuple[ShimList, ...]:
    """The events of PCR 14 that shim writes."""
    return tuple(
        ShimList(name_of(event.data), log.digest(event), event.number)
        for event in log.at(14)
        if event.type == _IPL and event.data[:3] == b"Mok"
    )


def read_grub(log: Measured) -> Grub:
    """Texts of PCR 8 and files of PCR 9. UTF-16 in PCR 8 is an older systemd-boot's, not GRUB's."""
    texts: list[GrubText] = []
    unexplained = []
    endings = [b"", b"\0"]
    for event in log.at(8):
        if event.type != _IPL:
            # A text under another type would be hidden so; a separator is known by what it holds.
            if log.digest(event) not in separator_digests(log.bank):
                unexplained.append(event.number)
        elif (text := _text(log, event, endings)) is not None:
            texts.append(text)
        elif event.data[1:2] != b"\0":
            unexplained.append(event.number)
    files = tuple(
        GrubFile(name_of(event.data), log.digest(event), event.number)
        for event in log.at(9)
        if event.type == _IPL and _is_file(event.data)
    )
    return Grub(tuple(texts), files, tuple(unexplained))


def _is_file(data: bytes) -> bool:
    """In a confidential machine's log, commands and shim's lists share the register with files."""
    return not data.startswith(b"Mok") and data[1:2] != b"\0" and _LABELLED.match(data) is None


def _text(log: Measured, event: Event, endings: list[bytes]) -> GrubText | None:
    """The text behind the label, up to its NUL, which older GRUBs measure too. The ending that fits is
    tried first with the next event, for all of one GRUB are alike.
    """
    found = _LABELLED.match(event.data)
    if found is None:
        return None
    label, content = found.groups()
    digest = event.digests[log.bank]
    if log.new(content + endings[0]).digest() != digest:
        if log.new(content + endings[1]).digest() != digest:
            return None
        endings.reverse()
    return GrubText(content.decode("utf-8", "replace"), label in _KERNEL_LABELS, event.number)


def read_unified_kernel(log: Measured) -> UnifiedKernel:
    """The pairs of PCR 11, strictly in turn from the first event, whatever its type: so no content can pass
    for a name, and none can be left out of the count.
    """
    events = [event for event in log.at(11) if event.type != EventType.USERSPACE]
    others = [
        event.number for event in log.at(11) if event.type == EventType.USERSPACE and not is_phase(log, event)
    ]
    sections = []
    for place in range(0, len(events) - 1, 2):
        name = utf16(events[place].data)
        if not log.binds(events[place], name.encode("utf-8", "replace") + b"\0"):
            break
        content = events[place + 1]
        sections.append(Section(name, log.digest(content), (events[place].number, content.number)))
    rest = [event.number for event in events[2 * len(sections) :]]
    return UnifiedKernel(tuple(sections), tuple(sorted(others + rest)))


def is_phase(log: Measured, event: Event) -> bool:
    """Is it a text that userspace measured? What looks like a section's name is the kernel image's, moved."""
    return event.type == EventType.USERSPACE and log.is_text(event) and not event.data.startswith(b".")


def name_of(data: bytes) -> str:
    """A name as GRUB and shim write it: up to the first NUL."""
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def utf16(data: bytes) -> str:
    """Text as UEFI programs write it, without the NUL at its end, of which some count only half."""
    padded = data + b"\0" if len(data) % 2 else data
    return padded.decode("utf-16-le", "replace").rstrip("\0")
