"""`make bench`: print the table; `python -m scripts.bench PART…` prints only these parts of it."""

import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from scripts.bench import agent, eventlog, evidence, fleet, ima, logs, oauth, rounds, workload

PARTS = {
    part.__name__.rpartition(".")[2]: part
    for part in (evidence, eventlog, ima, rounds, logs, oauth, agent, workload, fleet)
}


def main(wanted: Sequence[str]) -> int:
    """Exit status 1 if a promised ratio was missed, 2 for a part that there is not."""
    if unknown := set(wanted) - PARTS.keys():
        print(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{_processor()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(
        "medians of interleaved runs, the half of all values around them; floors from the same run\n"
    )
    missed = 0
    for name in wanted or PARTS:
        for row in PARTS[name].rows():
            print(row, flush=True)
            missed += not row.holds
    return 1 if missed else 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
