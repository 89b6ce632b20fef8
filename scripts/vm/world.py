"""What is there before the first boot? Images, a TPM with its maker, the service, and a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.vm.console import Console
from scripts.vm.machine import Machine, switched_on
from scripts.vm.report import Report
from scripts.vm.service import Service
from scripts.vm.uki import Image, Kernel, build_image

# A kernel that waits for its timer while its host is busy takes it for broken.
COMMAND_LINE = "root=/dev/disk/by-id/virtio-root rw console=ttyS0 loglevel=4 no_timer_check"
BOOT_SECONDS = 600.0
OFF_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class World:
    """`linux` and `initrd` are what every image is made of; consoles are kept in `cache`."""

    report: Report
    name: str
    cache: Path
    linux: Path
    initrd: Path
    service: Service
    machine: Machine

    def image(self, version: str, command_line: str = COMMAND_LINE) -> Image:
        """A signed image, not yet started by anybody."""
        kernel = Kernel(self.linux, self.initrd, command_line, version)
        return build_image(kernel, self.cache / "images" / f"{version}.efi")

    @contextmanager
    def boot(self, name: str, image: Image, *, secure_boot: bool = True) -> Iterator[Console]:
        """The machine from power-on to an orderly end, with root at its console."""
        log = self.cache / f"{self.name}-{name.replace(' ', '-')}.log"
        self.report.say(
            f"switching on {image.path.name}{'' if secure_boot else ', Secure Boot off'}; {log.name}"
        )
        with switched_on(self.machine, image, log, secure_boot=secure_boot) as console:
            console.log_in(within=BOOT_SECONDS)
            self.report.say("is up")
            yield console
            console.run("poweroff")
            console.expect("reboot: Power down", within=OFF_SECONDS)
