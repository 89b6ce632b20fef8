"""How long does it take, beside what it must cost at least?

Two machines differ, and so do two minutes of one machine: only a ratio of things measured in turn, in one
run, says something.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sample:
    """Microseconds: the median, and the half of all values that lies around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Sample":
        low, median, high = statistics.quantiles(values, n=4)
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:9.1f} µs ({self.low:.1f}–{self.high:.1f})"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, its floor, the ratio, and the ratio that we promise (None:
    none)."""

    name: str
    ours: Sample
    floor: Sample | None
    ratio: float | None
    bound: float | None
    note: str = ""

    @classmethod
    def beside(cls, name: str, ours: list[float], floor: list[float], *, bound: float | None) -> "Row":
        """The ratio is the median of the pairs': what slowed the machine for a moment slowed both of a pair.
        """
        ratio = statistics.median(mine / least for mine, least in zip(ours, floor, strict=True))
        return cls(name, Sample.of(ours), Sample.of(floor), ratio, bound)

    @classmethod
    def alone(cls, name: str, ours: list[float], *, note: str = "") -> "Row":
        """Something without a floor: its figures only."""
        return cls(name, Sample.of(ours), None, None, None, note)

    @property
    def holds(self) -> bool:
        return self.bound is None or (self.ratio is not None and self.ratio <= self.bound)

    def __str__(self) -> str:
        floor = "" if self.floor is None else str(self.floor)
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}×"
        bound = "" if self.bound is None else f"≤ {self.bound}×{'' if self.holds else '  MISSED'}"
        return f"{self.name:<44} {self.ours!s:<34} {floor:<34} {ratio:>6}  {bound} {self.note}".rstrip()


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the table that is no time: what was counted, what we promise of it, and whether that
    holds."""

    name: str
    found: str
    promised: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.name:<44} {self.found}  {self.promised}{'' if self.holds else '  MISSED'}"


def pair(
    name: str, ours: Work, floor: Work, *, bound: float | None, pairs: int = 1500, batch: int = 1
) -> Row:
    """Measure both in turn, so that whatever slows the machine slows both."""
    for work in (ours, floor):
        for _ in range(min(20, pairs)):
            work()
    measured: tuple[list[float], list[float]] = ([], [])
    gc.disable()
    try:
        for _ in range(pairs):
            for values, work in zip(measured, (ours, floor), strict=True):
                values.append(_timed(work, batch))
    finally:
        gc.enable()
    return Row.beside(name, *measured, bound=bound)


def _timed(work: Work, batch: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(batch):
        work()
    return (time.perf_counter_ns() - begin) / batch / 1000
