"""Runs the demonstration; the exit status is 0 only if everything was as it claims."""

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO

from scripts.demonstration.claims import Disappointed
from scripts.demonstration.display import Display
from scripts.demonstration.story import tell

Story = Callable[[Display, Path], tuple[str, str]]


def run(story: Story, out: TextIO) -> int:
    """Tell the story in a directory that is gone afterwards."""
    display, started = Display(out), time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="attestd-demo-") as work:
            good, bad = story(display, Path(work))
    except Disappointed as error:
        display.write()
        display.write(display.styled(f"The demonstration failed: {error}", "red"))
        return 1
    display.write()
    display.write(display.styled(good, "green"))
    display.write(f"{display.styled(bad, 'red')} ({time.monotonic() - started:.1f} s in all)")
    return 0


def _end(number: int, _: FrameType | None) -> None:
    # An exception, so that the context managers end what runs.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    sys.exit(run(tell, sys.stdout))
