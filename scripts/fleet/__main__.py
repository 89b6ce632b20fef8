"""Runs the rehearsal and says what was seen; the exit status is 0 only if all was as promised."""

import argparse
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from types import FrameType

from scripts.fleet.fleet import Late, affordable
from scripts.fleet.rehearsal import PROMISED_SECONDS, PROMISED_TRIES, Figures, rehearse


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if something was not as promised."""
    parser = argparse.ArgumentParser(prog="scripts.fleet", description=__doc__)
    parser.add_argument(
        "--agents", type=int, metavar="N", help="machines; else as many as there is memory for"
    )
    parser.add_argument("--database", metavar="URL", help="postgresql://…; else SQLite")
    asked = parser.parse_args(arguments)
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {line}", flush=True)

    try:
        figures = rehearse(asked.agents or affordable(), say, database=asked.database)
    except Late as error:
        print(error, file=sys.stderr)
        return 1
    for line in told(figures):
        print(line)
    faults = list(figures.faults())
    for fault in faults:
        print(f"NOT AS PROMISED: {fault}")
    return 1 if faults else 0


def told(figures: Figures) -> list[str]:
    """The figures in words."""
    back, doings = sorted(figures.back.values()), figures.doings
    return [
        f"machines                   {len(back)}",
        f"first boot, last identity  {max(figures.first.values()):.1f} s",
        f"after the cut              median {statistics.median(back):.1f} s, last {back[-1]:.1f} s",
        f"starts alone               {figures.bare:.1f} s (as many interpreters with the same imports)",
        f"beyond the starts          {figures.beyond:.1f} s (promised: at most {PROMISED_SECONDS:.0f} s)",
        f"most tries of one          {max(figures.tries.values())} (promised: at most {PROMISED_TRIES})",
        f"issued                     {sum(doings.issued.values())} credentials for "
        f"{len(doings.issued)} devices in {sum(doings.rounds.values())} accepted rounds",
        f"the service answered       {sum(doings.answers.values())} requests in {doings.busy:.1f} s of its "
        f"threads, {doings.refused} refusals, {doings.errors} errors",
        f"largest agent              {figures.peak / 1024:.1f} MiB",
    ]


def _end(number: int, _: FrameType | None) -> None:
    # An exception, so that the context managers end what runs.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    sys.exit(main())
