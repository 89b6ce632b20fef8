"""Which programs did the firmware load?

An image is a fact by its Authenticode digest alone, which the firmware computes; its path is what the
firmware says of it.
"""

from dataclasses import dataclass
from typing import Literal

from tpm.errors import StructureError
from tpm.eventlog.efi.image_load import ImageLoad, parse_image_load
from tpm.eventlog.events import EventType, register_of
from tpm.eventlog.facts.authority import Authority
from tpm.eventlog.facts.measured import Measured

Kind = Literal["application", "driver", "runtime_driver"]
KINDS: dict[int, Kind] = {
    EventType.EV_EFI_BOOT_SERVICES_APPLICATION: "application",
    EventType.EV_EFI_BOOT_SERVICES_DRIVER: "driver",
    EventType.EV_EFI_RUNTIME_SERVICES_DRIVER: "runtime_driver",
}


@dataclass(frozen=True, slots=True)
class Image:
    """One PE image that was loaded."""

    digest: bytes
    """Authenticode digest in the bank that was judged."""
    kind: Kind
    register: int
    load: ImageLoad | None
    """A hint: path and size; None where the notes cannot be read."""
    authority: int | None
    """A hint: the event of the authority that was measured with it. Firmware and shim measure each only
    once.
    """
    event: int


def read_images(log: Measured, authorities: tuple[Authority, ...]) -> tuple[Image, ...]:
    """Drivers of PCR 2 and applications of PCR 4, in the order in which they were loaded."""
    registers = {register_of(log.format, pcr) for pcr in (2, 4)}
    found = [
        event for register in registers for event in log.registers.get(register, ()) if event.type in KINDS
    ]
    found.sort()
    numbers = [event.number for event in found]
    images = []
    for place, event in enumerate(found):
        before = numbers[place - 1] if place else -1
        after = numbers[place + 1] if place + 1 < len(numbers) else 1 << 32
        authority = _authority(authorities, (before, event.number, after))
        images.append(
            Image(
                log.digest(event),
                KINDS[event.type],
                event.register,
                _load(event.data),
                authority,
                event.number,
            )
        )
    return tuple(images)


def _load(data: bytes) -> ImageLoad | None:
    try:
        return parse_image_load(data)
    except StructureError:
        return None


def _authority(authorities: tuple[Authority, ...], place: tuple[int, int, int]) -> int | None:
    """The firmware measures db's entry before the image that it lets run, shim its own after it."""
    before, here, after = place
    for authority in authorities:
        if before < authority.event < here and not authority.by_shim:
            return authority.event
        if here < authority.event < after and authority.by_shim:
            return authority.event
    return None
