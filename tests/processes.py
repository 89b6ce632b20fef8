"""What does a command that we start find around it, and does it leave processes behind?"""

import os
from pathlib import Path


def surroundings(directory: Path) -> dict[str, str]:
    """An environment in which everything temporary is made in this directory."""
    directory.mkdir()
    return {**os.environ, "TMPDIR": str(directory)}


def running_in(directory: Path) -> list[str]:
    """The processes that name this directory, or are in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes().decode(errors="replace")
            place = os.readlink(process / "cwd")
        except OSError:
            continue
        if str(directory) in told or place.startswith(str(directory)):
            found.append(told)
    return found
