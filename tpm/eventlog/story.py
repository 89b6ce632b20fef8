"""What happened during this boot, one line an event, for people?

Everything here may be a hint: types and notes of events are shown as they stand. Where a line rests on data
that was measured, it says so with `measured`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tpm.eventlog.events import Event, EventLog, EventType, register_of
from tpm.eventlog.facts.boot import BootFacts
from tpm.eventlog.facts.images import Image
from tpm.eventlog.replay import events_of
from tpm.eventlog.sentences import sentence
from tpm.eventlog.userspace import UserspaceLog

_FILES = (
    ("shim", "shim"),
    ("mmx64", "MokManager"),
    ("fwup", "fwupd"),
    ("grub", "GRUB"),
    ("systemd-boot", "systemd-boot"),
    ("bootmgfw", "Windows"),
    ("vmlinuz", "kernel"),
    ("linux", "kernel"),
    ("kernel", "kernel"),
)
"""Parts of file names, in the order in which they are tried, and whose programs have such."""


class Line(NamedTuple):
    """One event in words."""

    event: int
    register: int
    component: str
    """Whose event it is: "firmware", "option ROM", "shim", "GRUB", "kernel"… A hint."""
    text: str
    measured: bool
    """The words are what was measured; else they are what the log says beside a digest."""


def story(log: EventLog, facts: BootFacts, userspace: UserspaceLog | None = None) -> Iterator[Line]:
    """Every event of both logs, in their order."""
    sentences = sentence(facts)
    images = {image.event: image for image in facts.images}
    running = "firmware"
    for event in events_of(log, userspace):
        image = images.get(event.number)
        if image is not None:
            running = _program(image, running, facts)
            component = running if image.kind == "application" else _driver(image)
        else:
            component = _component(log, event, running, facts)
        text, measured = sentences(event)
        yield Line(event.number, event.register, component, text, measured)


def _program(image: Image, running: str, facts: BootFacts) -> str:
    """Whose program an image is: by its file's name, or by what it measured itself."""
    if image.kind != "application":
        return running
    file = ((image.load.file if image.load else None) or "").lower()
    for part, component in _FILES:
        if part in file.rpartition("\\")[2]:
            return component
    # What runs behind a removable medium's default name shows itself by what it measures then.
    others = [one.event for one in facts.images if one.event > image.event]
    until = min(others, default=1 << 32)
    if any(image.event < one.event < until for one in facts.shim_lists):
        return "shim"
    if any(image.event < one.events[0] < until for one in facts.uki.sections):
        return "kernel"
    if any(image.event < one.event < until for one in facts.grub.texts):
        return "GRUB"
    return "kernel" if running in ("GRUB", "systemd-boot") else "boot loader"


def _driver(image: Image) -> str:
    path = (image.load.path if image.load else None) or ""
    return "option ROM" if "Pci(" in path and "Offset(" in path else "driver"


def _component(log: EventLog, event: Event, running: str, facts: BootFacts) -> str:
    """Whose event it is, for one that is no image."""
    kind, register = event.type, event.register
    if kind == EventType.USERSPACE:
        return "systemd"
    if kind == EventType.EV_EFI_VARIABLE_AUTHORITY:
        by_shim = [one.event for one in facts.secure_boot.authorities if one.by_shim]
        by_shim += [one.event for one in facts.secure_boot.shim_state]
        return "shim" if event.number in by_shim else "firmware"
    if kind == EventType.EV_IPL and event.data.startswith(b"Mok"):
        return "shim"
    if kind == EventType.EV_IPL and register in {register_of(log.format, pcr) for pcr in (8, 9)}:
        return "systemd-boot" if event.data[1:2] == b"\0" else "GRUB"
    if kind == EventType.EV_IPL and register == 11:
        return "kernel"
    if kind == EventType.EV_EVENT_TAG and register in (9, 12):
        return "Windows" if running == "Windows" else "kernel"
    if log.format != "ccel" and 11 <= register <= 14:
        return "Windows" if running == "Windows" else running
    return "firmware"
