"""Which of this machine's measurement logs can be read?"""

import os
from dataclasses import dataclass
from pathlib import Path

from attestd.agent.doctor.check import Unread, made
from attestd.agent.logs import LogFiles
from tpm.eventlog import reader, userspace
from tpm.ima.measurements import MAX_BYTES

Log = bytes | Unread | None
"""None where none is looked for."""


@dataclass(frozen=True, slots=True)
class LogReading:
    """The firmware's log, userspace's, and IMA's list, as they are in `files`."""

    files: LogFiles
    event_log: Log
    userspace: Log
    ima: Log


def read_logs(files: LogFiles) -> LogReading:
    """One byte more than each may have is read, so that it shows."""
    return LogReading(
        files,
        _read(files.event_log, reader.SIZE_LIMIT),
        _read(files.userspace, userspace.SIZE_LIMIT),
        _read(files.ima, MAX_BYTES),
    )


def _read(path: Path | None, limit: int) -> Log:
    if path is None:
        return None

    def content() -> bytes:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
            return file.read(limit + 1)

    return made(content)
