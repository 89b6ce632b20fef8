"""What a process does that was forked from one that has loaded the agent already, and that dies when told."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

WRITES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.truncate", "shutil.rmtree"})
"""What Python tells before it does it; beside files that are opened to be written."""


def join(arguments: Sequence[str], log: str, told: str, last: int | None) -> None:
    """`attestd agent join` with these arguments. It kills itself, as no handler can prevent, before its write
    number `last`, counted from 1; without that it writes into the file `told` how many there were."""
    from attestd.cli.main import main

    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    os.dup2(2, 1)
    count = 0

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal count
        opens = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        if (opens and not str(given[0]).startswith(("/dev", "/proc"))) or event in WRITES:
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        main(["agent", "join", *arguments])
    except SystemExit as end:
        if last is None and not end.code:
            writes = count  # Before there is another.
            with open(told, "w", encoding="ascii") as file:
                file.write(str(writes))
        raise
