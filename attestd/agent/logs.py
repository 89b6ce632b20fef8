"""What does this machine say of how it booted and what it ran, and how much of that is known already?

Logs go only where the service asks for them. A log that the service named in its last answer goes by digest,
and IMA's list from where the last one ended. Userspace's logs are read after the quote: they then cover at
least what the quote does.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from attestd.agent.state import State
from attestd.wire import b64encode
from tpm.errors import DeviceError, StructureError
from tpm.ima.ascii import write_ascii
from tpm.ima.binary import write_binary
from tpm.ima.measurements import is_binary, read_records

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

IMA_ENTRIES = 2**31
"""A request continues IMA's list from an entry below this."""

_REMEMBERED = {"event_log": "known_event_log", "ima_next": "ima_next"}


def boot_id() -> str | None:
    """The kernel's name for this boot; None where it has none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class LogFiles:
    """Where the logs are; None: there is none to send."""

    event_log: Path | None = None
    userspace: Path | None = None
    ima: Path | None = None


OWN = LogFiles(
    Path("/sys/kernel/security/tpm0/binary_bios_measurements"),
    Path("/run/log/systemd/tpm2-measure.log"),
    Path("/sys/kernel/security/ima/binary_runtime_measurements"),
)
"""Where Linux and systemd keep this machine's own; what cannot be read there is not sent."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the service's last answer said that it knows, and of which boot."""

    boot_id: str | None = None
    event_log: str | None = None
    ima_next: int = 0


@dataclass(frozen=True, slots=True)
class Logs:
    """One device's logs, and what is remembered of them from round to round (nothing without `state`)."""

    files: LogFiles = LogFiles()
    state: State | None = None

    def known(self) -> Known:
        """Nothing after a reboot, and nothing if what was kept cannot be read."""
        kept = None if self.state is None else self.state.known_logs()
        boot = boot_id()
        if kept is None or boot is None or kept.get("boot_id") != boot:
            return Known()
        event_log, ima_next = kept.get("event_log"), kept.get("ima_next")
        return Known(
            boot,
            event_log if isinstance(event_log, str) else None,
            ima_next if type(ima_next) is int and 0 <= ima_next < IMA_ENTRIES else 0,
        )

    def members(self, known: Known, *, event_log: bool, ima_log: bool) -> dict[str, Any]:
        """The members of the body that the service asked for. DeviceError for a list that cannot be read."""
        found: dict[str, Any] = {}
        if event_log and (raw := _read(self.files.event_log)) is not None:
            digest = hashlib.sha256(raw).hexdigest()
            found["event_log"] = {"sha256": digest} if digest == known.event_log else b64encode(raw)
            if (measured := _read(self.files.userspace)) is not None:
                found["userspace_log"] = b64encode(measured)
        if ima_log and (listed := _read(self.files.ima)) is not None:
            found["ima_log"] = b64encode(_after(listed, known.ima_next))
        return found

    def remember(self, answer: Mapping[str, Any]) -> None:
        """What the service says that it knows from now on. Not kept where the disk is full: all of it goes
        again then."""
        if self.state is None:
            return
        members = {name: answer.get(wire) for name, wire in _REMEMBERED.items()}
        told = {"boot_id": boot_id(), **members}
        with suppress(OSError):  # It saves bytes: an accepted round must not be lost for it.
            if told != self.state.known_logs():  # Each write waits for the disk.
                self.state.keep_known_logs(told)

    def forget(self) -> None:
        """The service does not know any more what it named: send all of it."""
        if self.state is not None:
            with suppress(OSError):
                self.state.keep_known_logs({})


def _read(path: Path | None) -> bytes | None:
    """What is there; None for what is not, for what this user may not read, and for an empty log."""
    if path is None:
        return None
    try:
        return path.read_bytes() or None
    except OSError:
        return None


def _after(raw: bytes, count: int) -> bytes:
    """The list without its first entries."""
    if count == 0:
        return raw
    write = write_binary if is_binary(raw) else write_ascii
    try:
        return b"".join(write(record) for record in islice(read_records(raw), count, None))
    except StructureError as error:
        raise DeviceError(
            error.reason, f"IMA's list of this machine cannot be read: {error.detail}"
        ) from None
