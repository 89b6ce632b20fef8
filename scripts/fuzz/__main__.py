"""`make fuzz`: every parser, a million mutations each.

    python -m scripts.fuzz [--rounds N] [--seed N] [TARGET…]

Each part of the project that parses has a module here with `targets()`.
"""

import argparse
import sys
import time

from scripts.fuzz import certificate, eventlog, ima, structures
from scripts.fuzz.harness import Target, keep, run

PARTS = (eventlog, ima, certificate, structures)

ROUNDS = 1_000_000


def main() -> int:
    """Exit status 1 if a parser failed; what made it fail is kept in the corpus."""
    options = argparse.ArgumentParser(prog="fuzz")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("target", nargs="*")
    given = options.parse_args()
    known = [target for part in PARTS for target in part.targets()]
    chosen = [target for target in known if not given.target or target.name in given.target]
    if not chosen:
        options.error(f"known targets are {', '.join(target.name for target in known)}")
    return 1 if sum(_told(target, given.rounds, given.seed) for target in chosen) else 0


def _told(target: Target, rounds: int, seed: int) -> int:
    begin = time.monotonic()
    faults = 0
    for fault in run(target, rounds=rounds, seed=seed):
        faults += 1
        print(f"{target.name}: {fault.what}; kept as {keep(fault)}", flush=True)
    print(
        f"{target.name:<16} {rounds:>9} mutations  {faults} faults  {time.monotonic() - begin:.0f} s",
        flush=True,
    )
    return faults


if __name__ == "__main__":
    sys.exit(main())
