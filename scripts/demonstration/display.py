"""How does the reader see it? Stages with their times, commands as typed; colour on a terminal only."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

WIDTH = 100
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "cyan": "36"}


class Display:
    """Writes a stage when it has ended, so that its time stands beside its name."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty()
        self._lines: list[str] = []
        self._number = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One step of the story; what is said meanwhile is its text."""
        started, self._number = time.monotonic(), self._number + 1
        try:
            yield
        finally:
            seconds = f"{time.monotonic() - started:.1f} s"
            if self._number > 1:
                self.write()
            title = f"{self._number}  {name} "
            dots = "·" * (WIDTH - len(title) - len(seconds) - 1)
            self.write(f"{self.styled(title, 'bold')}{self.styled(f'{dots} {seconds}', 'dim')}")
            for line in self._lines:
                self.write(f"   {line}")
            self._lines.clear()

    def say(self, line: str, style: str | None = None) -> None:
        """One line of the stage's text."""
        self._lines.append(self.styled(line, style))

    def command(self, who: str, words: Sequence[str]) -> None:
        """A command as it would be typed, broken before an option where it is long."""
        typed = " ".join(shlex.quote(word) for word in words).replace(" --", "\n--").splitlines()
        line, length = self.styled(f"{who} $", "cyan"), len(who) + 2
        for part in typed:
            if length + len(part) > WIDTH - 8:
                self._lines.append(f"{line} \\")
                line, length = "   ", 3
            line, length = f"{line} {part}", length + 1 + len(part)
        self._lines.append(line)

    def styled(self, text: str, style: str | None) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and self._colour else text

    def write(self, line: str = "") -> None:
        """A line outside any stage."""
        print(line, file=self._out, flush=True)
