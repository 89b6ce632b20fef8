"""Is this machine another than a moment ago, as far as its service would see?

Cheap enough to ask every half minute. Register 10 is left out: IMA moves it with every program that is run.
"""

import hashlib
from pathlib import Path

from attestd.agent.logs import LogFiles
from attestd.agent.machine import opened
from attestd.agent.running.schedule import LOOK_PAUSE
from tpm.device.device import Device
from tpm.errors import DeviceError
from tpm.structures.pcrs import PcrSelection

WATCHED = (*range(10), *range(11, 16))


def fingerprint(device: Device, files: LogFiles) -> bytes:
    """Of the registers and of the firmware's and userspace's logs. DeviceError."""
    digest = hashlib.sha256()
    banks = device.banks()
    # What is measured goes into every bank: one is enough to see that something was.
    bank = "sha256" if "sha256" in banks else next(iter(banks), None)
    values = {} if bank is None else device.read_pcrs(PcrSelection.of(bank, WATCHED))[bank]
    for register, value in sorted(values.items()):
        digest.update(b"%d %s\n" % (register, value))
    for path in (files.event_log, files.userspace):
        try:
            content = b"" if path is None else path.read_bytes()
        except OSError:
            content = b""
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()


class Watch:
    """Looks at the machine now and then while it is denied. `due` is when next (milliseconds), None while
    nothing is watched."""

    def __init__(self, tcti: str, directory: Path, files: LogFiles) -> None:
        self._tcti, self._directory, self._files = tcti, directory, files
        self._seen: bytes | None = None
        self.due: int | None = None

    def begin(self, now: int) -> None:
        """From how it is now."""
        self._seen, self.due = self._fingerprint(), now + LOOK_PAUSE

    def end(self) -> None:
        self._seen = self.due = None

    def changed(self, now: int) -> bool:
        """Is it another than at the last look? Not if that cannot be said."""
        before, found = self._seen, self._fingerprint()
        self._seen, self.due = found or before, now + LOOK_PAUSE
        return before is not None and found is not None and before != found

    def _fingerprint(self) -> bytes | None:
        try:
            with opened(self._tcti, self._directory) as device:
                return fingerprint(device, self._files)
        except DeviceError:
            return None
