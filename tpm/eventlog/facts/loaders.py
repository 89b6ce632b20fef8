"""What did shim, GRUB and systemd-stub measure?

shim: its key lists into PCR 14, by digest. GRUB: each command into PCR 8, the digest over the text behind a label in the event's
data; each file into PCR 9, by digest. systemd-stub: into PCR 11, for each section of a unified kernel image, first
its name with a NUL and then its content (UAPI.5).
"""

from dataclasses import dataclass

from tpm.eventlog.events import Event, EventType
from tpm.eventlog.facts.measured import Measured

LABELS = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ", b"grub_cmd ", b"grub_kernel_cmdline ")
"""What GRUB writes before the text that it measures. A label is not measured."""

_KERNEL_LABELS = (b"kernel_cmdline: ", b"grub_kernel_cmdline ")
_IPL = int(EventType.EV_IPL)


@dataclass(frozen=True, slots=True)
class ShimList:
    """One of shim's variables in PCR 14."""

    name: str
    """A hint, such as "MokList"."""
    digest: bytes
    event: int


@dataclass(frozen=True, slots=True)
class GrubText:
    """Something that GRUB ran or gave to a kernel. The text was measured; what it was for, by its label, was not."""

    text: str
    labelled_kernel: bool
    event: int

    @property
    def is_command_line(self) -> bool:
        """May it be what a kernel was given? By its label, or because it begins with a path as no command does.

        Whoever relabels the true one does not hide it so.
        """
        return self.labelled_kernel or self.text.startswith(("/", "(", "\\"))


@dataclass(frozen=True, slots=True)
class GrubFile:
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
    """Events of PCR 8 whose text is not what was measured. While there are some, nobody knows all that GRUB did."""


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
    for event in log.at(8):
        if event.type != _IPL:
            if event.type != EventType.EV_SEPARATOR or event.number not in log.whole:
                unexplained.append(event.number)
        elif (text := _text(log, event)) is not None:
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
    return not data.startswith((*LABELS, b"Mok")) and data[1:2] != b"\0"


def _text(log: Measured, event: Event) -> GrubText | None:
    """The text behind the label, up to its NUL; some GRUBs measure that too, and leave what was in the buffer behind."""
    data = event.data
    label = next((one for one in LABELS if data.startswith(one)), None)
    if label is None:
        return None
    end = data.find(b"\0", len(label))
    content = data[len(label) :] if end < 0 else data[len(label) : end]
    if not log.binds(event, content) and not log.binds(event, content + b"\0"):
        return None
    return GrubText(content.decode("utf-8", "replace"), label in _KERNEL_LABELS, event.number)


def read_unified_kernel(log: Measured) -> UnifiedKernel:
    """The pairs of PCR 11, strictly in turn, so that no content can pass for a name."""
    events = [event for event in log.at(11) if event.type == _IPL]
    others = [
        event.number for event in log.at(11) if event.type not in (_IPL, EventType.USERSPACE)
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


def name_of(data: bytes) -> str:
    """A name as GRUB and shim write it: up to the first NUL."""
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def utf16(data: bytes) -> str:
    """Text as UEFI programs write it, without the NUL at its end, of which some count only half."""
    padded = data + b"\0" if len(data) % 2 else data
    return padded.decode("utf-16-le", "replace").rstrip("\0")
