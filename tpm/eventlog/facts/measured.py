"""Which events may a fact rest on, and is what they say what was measured?

Type and data of an event are not authenticated (DESIGN rule 7). So a fact is taken from data only where the
data hashes to the event's digest in the bank that is judged, in the register where it belongs.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tpm.eventlog.events import Event, EventType, Format, register_of
from tpm.eventlog.findings import Finding

MUST_HASH = frozenset(
    {
        EventType.EV_SEPARATOR,
        EventType.EV_ACTION,
        EventType.EV_EFI_ACTION,
        EventType.EV_EFI_GPT_EVENT,
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EV_EFI_VARIABLE_AUTHORITY,
    }
)
"""Events whose digest is that of their data: where it is not, somebody should know."""

_MAY_HASH = MUST_HASH | {
    EventType.EV_S_CRTM_VERSION,
    EventType.EV_EVENT_TAG,
    EventType.EV_NONHOST_INFO,
    EventType.EV_EFI_VARIABLE_BOOT,
    EventType.EV_EFI_VARIABLE_BOOT2,
    EventType.USERSPACE,
}
ERROR_SEPARATOR = b"\x01\0\0\0"
SEPARATORS = (bytes(4), b"\xff\xff\xff\xff", ERROR_SEPARATOR)
"""What separators hold: two normal values, and 1 when the firmware met an error."""

OS_SEPARATOR = b"os-separator"

_NO_ACTION = int(EventType.EV_NO_ACTION)


@dataclass(frozen=True, slots=True)
class Measured:
    """The events of one bank that extend something, by register, in the order of the log."""

    format: Format
    bank: str
    registers: Mapping[int, tuple[Event, ...]]
    whole: frozenset[int]
    """Numbers of the events whose data, as it stands, hashes to their digest."""
    new: Callable[[bytes], Any]
    """The bank's hash, as hashlib has it."""

    def at(self, pcr: int) -> tuple[Event, ...]:
        """The events of the register where this format has what belongs into this PCR."""
        return self.registers.get(register_of(self.format, pcr), ())

    def digest(self, event: Event) -> bytes:
        """What the event extended."""
        return event.digests[self.bank]

    def is_text(self, event: Event) -> bool:
        """Is the data a line of ASCII, and what was measured? No structure of UEFI is such a line."""
        return event.number in self.whole and event.data.isascii() and event.data.decode().isprintable()

    def is_os_separator(self, event: Event) -> bool:
        """Is it what systemd ends the firmware's registers with (since 261)?"""
        return event.type == EventType.USERSPACE and self.binds(event, OS_SEPARATOR)

    def binds(self, event: Event, content: bytes) -> bool:
        """Is this content what was measured?"""
        digest: bytes = self.new(content).digest()
        return digest == event.digests[self.bank]


def measured(
    events: Iterable[Event], *, format: Format, bank: str, registers: frozenset[int] | None
) -> Measured:
    """The events that facts may rest on: those that extend this bank, in these registers (None: all)."""
    new: Callable[[bytes], Any] = getattr(hashlib, bank)
    found: dict[int, list[Event]] = {}
    whole = []
    for event in events:
        number, register, kind, digests, data = event
        if kind == _NO_ACTION or bank not in digests or (registers is not None and register not in registers):
            continue
        there = found.get(register)
        if there is None:
            there = found[register] = []
        there.append(event)
        if kind in _MAY_HASH and new(data).digest() == digests[bank]:
            whole.append(number)
    frozen = {register: tuple(those) for register, those in found.items()}
    return Measured(format, bank, frozen, frozenset(whole), new)


@lru_cache(maxsize=8)
def separator_digests(bank: str) -> frozenset[bytes]:
    """By what a separator is known, whatever its event is called."""
    return frozenset(getattr(hashlib, bank)(content).digest() for content in SEPARATORS)


def finding(code: str, event: Event, detail: str) -> Finding:
    """A finding about one event."""
    return Finding(code, detail, event.register, event.number)
