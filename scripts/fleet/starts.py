"""What do starts cost on this machine, before an agent has done anything?

As many processes as there are agents, each an interpreter that imports the modules which a running agent has
imported, all started at once. Where a fleet shares two processors, that much of its time is the rehearsal's
own: real machines have a processor each.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_IMPORTED = re.compile(r"^import time:\s*\d+ \|\s*\d+ \| +(\S+)$", re.MULTILINE)
_PROGRAM = """
import os, sys
for name in sys.argv[2:]:
    try:
        __import__(name)
    except Exception:
        pass  # As it failed in the agent, in whatever way: libraries try.
os.write(int(sys.argv[1]), b"1")
os._exit(0)
"""
"""Without the interpreter's own end: an agent goes on."""

TRACE = {"PYTHONPROFILEIMPORTTIME": "1"}
"""In its environment, this makes an agent write what it imports to stderr."""


def modules_in(trace: str) -> tuple[str, ...]:
    """The modules that an interpreter imported under `TRACE`, in the order in which each was complete."""
    return tuple(dict.fromkeys(_IMPORTED.findall(trace)))


def bare_starts(modules: Sequence[str], count: int = 1) -> float:
    """Seconds from the first start until all of them have imported these. RuntimeError if one died of it."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as ready:
        begin = time.monotonic()
        try:
            processes = [_start(modules, writer) for _ in range(count)]
        finally:
            os.close(writer)
        left = count
        while left and (told := ready.read(left)):
            left -= len(told)
        seconds = time.monotonic() - begin
    for process in processes:
        process.wait()
    if left:
        raise RuntimeError(f"{left} interpreters ended before they had imported everything")
    return seconds


def _start(modules: Sequence[str], writer: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", _PROGRAM, str(writer), *modules]
    # A session of its own, as each agent has: the kernel shares out the processors among sessions.
    return subprocess.Popen(
        command, pass_fds=[writer], stdin=subprocess.DEVNULL, cwd=_ROOT, start_new_session=True
    )


_ROOT = Path(__file__).parents[2]
