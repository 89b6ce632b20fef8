"""What does the machine say on its serial line, and what is typed there?

The line is a Unix socket of QEMU. Everything that comes is read at once, so that a machine never waits for
its reader, and QEMU keeps a copy in a file.
"""

import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.demonstration.claims import Disappointed

_ESCAPES = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[78]|[\x00\x07\x0e\x0f\r]"
)
# What services say meanwhile, as journald writes it to a console.
_NEWS = re.compile(r"^(?:.*?)\[ *\d+\.\d+\] \S+\[\d+\]: .*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Typed:
    """What a command at the console wrote, both streams together, and its exit status."""

    status: int
    text: str


class Console:
    """The serial line of a running machine."""

    def __init__(self, path: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(path))
        self._text = ""
        self._at = 0
        self._ended = False
        self._news = threading.Condition()
        self._count = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()

    @property
    def text(self) -> str:
        """All that was said since the machine was switched on, without control sequences."""
        with self._news:
            return _ESCAPES.sub("", self._text)

    def expect(self, pattern: str, *, within: float) -> re.Match[str]:
        """The next match behind the last one; Disappointed when it does not come within so many seconds."""
        end = time.monotonic() + within
        with self._news:
            while True:
                said = _ESCAPES.sub("", self._text[self._at :])
                if found := re.search(pattern, said, re.MULTILINE):
                    self._at = len(self._text)
                    return found
                if self._ended or (not self._news.wait(end - time.monotonic()) and time.monotonic() >= end):
                    last = "\n".join(said.strip().splitlines()[-15:])
                    why = "the machine ended" if self._ended else f"nothing came within {within:.0f} s"
                    raise Disappointed(f"the console should say {pattern!r}, but {why}; last:\n{last}")

    def said(self, pattern: str, *, within: float) -> re.Match[str] | None:
        """The first match in all that was said since power-on, or None when none comes within so many
        seconds. Nothing is skipped by it."""
        end = time.monotonic() + within
        with self._news:
            while (found := re.search(pattern, _ESCAPES.sub("", self._text), re.MULTILINE)) is None:
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    return None
                self._news.wait(left)
            return found

    def log_in(self, *, within: float) -> None:
        """Wait until root is logged in, as getty does by itself, and silence what would come in between."""
        self.expect(r"root@\S+# ?", within=within)
        self._send("stty -echo; PS1=; PS2=; export TERM=dumb; dmesg -n 1; echo logged-$((1+1))-in\n")
        self.expect("logged-2-in", within=60)

    def run(self, command: str, *, within: float = 180) -> Typed:
        """Type one command and wait for its end."""
        self._count += 1
        mark = f"done-{self._count}"
        self._send(f"{{ {command}\n}} </dev/null 2>&1; echo {mark}-$?.\n")
        found = self.expect(rf"(?s)\A(.*?){mark}-(\d+)\.", within=within)
        return Typed(int(found[2]), _NEWS.sub("", found[1]).strip("\n"))

    def _send(self, text: str) -> None:
        self._line.sendall(text.encode())

    def _read(self) -> None:
        while True:
            try:
                piece = self._line.recv(65536)
            except OSError:
                piece = b""
            with self._news:
                self._text += piece.decode(errors="replace")
                self._ended = self._ended or not piece
                self._news.notify_all()
            if not piece:
                return
