"""What did each boot prove? Told as it happens, and as a table at the end."""

import time
from dataclasses import dataclass
from typing import TextIO

_WIDTH = 118


@dataclass(frozen=True, slots=True)
class Proof:
    """One promise, the boot in which it was looked at, and whether it held."""

    boot: str
    promise: str
    held: bool


class Report:
    """Lines with the time since the start, and the promises."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty()
        self._began = time.monotonic()
        self._proofs: list[Proof] = []
        self._boot = ""

    def begin(self, boot: str, what: str) -> None:
        """What is said and proven from now on belongs to this boot."""
        self._boot = boot
        self._write("")
        self._write(self._styled(f"{boot}  {what}", "1"))

    def say(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            self._write(f"{self._time()}  {line}")

    def check(self, promise: str, held: bool, found: str = "") -> None:
        """A promise of this boot; `found` is said where it did not hold."""
        self._proofs.append(Proof(self._boot, promise, held))
        self._write(f"{self._time()}  {self._mark(held)} {promise}")
        if not held and found:
            self.say(f"found: {found}")

    def table(self) -> bool:
        """All promises; whether all held, and there were any."""
        self._write("")
        last = ""
        for proof in self._proofs:
            boot = proof.boot if proof.boot != last else ""
            self._write(f"{boot:<10}{self._mark(proof.held)}  {proof.promise}")
            last = proof.boot
        held = [proof for proof in self._proofs if proof.held]
        self._write("")
        self._write(f"{len(held)} of {len(self._proofs)} held, in {self._time().strip()} minutes")
        return bool(held) and len(held) == len(self._proofs)

    def _mark(self, held: bool) -> str:
        return self._styled("held" if held else "FAILED", "32" if held else "31")

    def _time(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:3}:{seconds:02}"

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour else text

    def _write(self, line: str) -> None:
        print(line[: _WIDTH * 4], file=self._out, flush=True)
