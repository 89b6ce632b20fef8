"""How does a service tell systemd how it is? sd_notify(3): short datagrams to the socket that systemd names.

Without that socket nothing is sent, and who calls needs not care: in the foreground all goes the same way.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_DIGITS = re.compile(r"[0-9]{1,18}")
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Notifier:
    """`address` is what a Unix socket connects to, or None. `interval` is how often to `ping`, in seconds:
    half of what systemd waits for before it kills; None where it does not watch this process."""

    address: str | None = None
    interval: float | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], *, pid: int) -> Notifier:
        """What systemd asked of the process `pid` (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID). An address of
        a kind that we do not know, or a time that is none, is as if it were not there."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@") or len(address) < 2:
            return cls()
        abstract = address.startswith("@")
        return cls("\0" + address[1:] if abstract else address, _interval(environ, pid))

    def ready(self, status: str = "") -> bool:
        """The start, or a reload, has ended. Every method says whether the datagram was sent."""
        return self._send("READY=1", *_status(status))

    def status(self, status: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(*_status(status))

    def ping(self) -> bool:
        """Still alive; at least every `interval`."""
        return self.interval is not None and self._send("WATCHDOG=1")

    def reloading(self, *, monotonic_us: int) -> bool:
        """A reload begins; `ready` ends it. `monotonic_us` is CLOCK_MONOTONIC in microseconds."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}")

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def _send(self, *lines: str) -> bool:
        """Never waits and never raises: a systemd that does not read is no reason to stop serving."""
        if self.address is None or not lines:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.connect(self.address)
                sock.send("\n".join(lines).encode())
        except (OSError, ValueError):
            return False
        return True


def _interval(environ: Mapping[str, str], pid: int) -> float | None:
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 or None if _DIGITS.fullmatch(microseconds) else None


def _status(text: str) -> tuple[str, ...]:
    """A line break would begin another assignment, and who fails may say what a server told it."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())[:_LONGEST]
    return (f"STATUS={line}",) if line else ()
