"""How long does a whole fleet wait for its identities after a power cut, and does anybody get anything twice?

The rehearsal of `scripts.fleet` with real agents, a software TPM each, and one service, all on this machine.
What the starts of as many interpreters with the same imports take is told beside it: real machines do that
each by itself.
"""

from collections.abc import Iterator

from scripts.bench.measure import Fact, Row
from scripts.fleet.fleet import FEW, MANY, affordable
from scripts.fleet.machine import FORMATS
from scripts.fleet.rehearsal import PROMISED_SECONDS, PROMISED_TRIES, Figures, rehearse


def rows() -> Iterator[Row | Fact]:
    """As many agents as there is memory for."""
    count = affordable()
    figures = rehearse(count, lambda _: None)
    less = "" if count == MANY else f"{FEW} because less than 16 GiB are free; "
    back = [seconds * 1e6 for seconds in figures.back.values()]
    note = f"{less}as many starts alone: {figures.bare:.1f} s"
    yield Row.alone(f"herd of {count}: power back to identity", back, note=note)
    yield from _facts(count, figures)


def _facts(count: int, figures: Figures) -> Iterator[Fact]:
    yield Fact(
        "  the last identity",
        f"{max(figures.back.values()):.1f} s, {figures.beyond:.1f} s beyond the starts",
        f"≤ {PROMISED_SECONDS:.0f} s beyond them",
        figures.beyond <= PROMISED_SECONDS,
    )
    most = max(figures.tries.values())
    yield Fact("  the most tries of one", str(most), f"≤ {PROMISED_TRIES}", most <= PROMISED_TRIES)
    doings, expected = figures.doings, count * len(FORMATS)
    issued = sum(doings.issued.values())
    yield Fact(
        "  issued after the cut",
        f"{issued} credentials in {sum(doings.rounds.values())} rounds; the service refused "
        f"{doings.refused} requests and failed {doings.errors} times",
        f"exactly {expected} in {count}, no failure",
        not list(figures.repeated()) and not doings.errors,
    )
