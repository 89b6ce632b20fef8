"""Does a machine that really boots get its identity, and only that machine in that state?

    python -m scripts.vm [device] [newcomer]

Makes a small Debian, a device of it with the agent's package, and signed kernel images; runs the service
here; then switches machines on in QEMU: `device` is started in five ways, `newcomer` follows the README. Exit
status 0 only if every promise held.
"""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from scripts.demonstration.claims import Disappointed
from scripts.vm.boots import tell
from scripts.vm.host import install_missing
from scripts.vm.newcomer import follow_readme
from scripts.vm.report import Report
from scripts.vm.workshop import Workshop, workshop
from scripts.vm.world import World

_CACHE = Path(".cache/vm")
_STORIES: Mapping[str, tuple[Callable[[Workshop], World], Callable[[World], None]]] = {
    "device": (Workshop.device, tell),
    "newcomer": (Workshop.newcomer, follow_readme),
}


def main(arguments: Sequence[str]) -> int:
    if set(arguments) - set(_STORIES):
        print(f"usage: python -m scripts.vm [{'] ['.join(_STORIES)}]", file=sys.stderr)
        return 2
    report = Report(sys.stdout)
    try:
        install_missing(report.say)
        with ExitStack() as stack:
            made = workshop(report, _CACHE.absolute(), stack)
            for name in arguments or _STORIES:
                _try(report, made, name)
    except Disappointed as error:
        report.check("it could be tried", False, str(error))
    return 0 if report.table() else 1


def _try(report: Report, made: Workshop, name: str) -> None:
    make, story = _STORIES[name]
    try:
        story(make(made))
    except Disappointed as error:
        report.check(f"the {name} could be looked at to the end", False, str(error))


def _end(number: int, _: FrameType | None) -> None:
    # An exception, so that the context managers end what runs.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    sys.exit(main(sys.argv[1:]))
