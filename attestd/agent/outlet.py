"""Where does what is held go besides the Workload API?"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attestd.agent.holdings import Holdings
from attestd.agent.settings import Workload


class Outlet(Protocol):
    """Where what is held goes besides: `attestd.agent.files.Delivery`."""

    def show(self, holdings: Holdings, *, now: int, dead: Collection[str] = ()) -> Mapping[str, str]: ...

    def due(self) -> int | None: ...

    def reconfigure(self, workloads: Sequence[Workload]) -> None: ...


class NoFiles:
    """For a machine that delivers none."""

    def show(self, holdings: Holdings, *, now: int, dead: Collection[str] = ()) -> Mapping[str, str]:
        return {}

    def due(self) -> int | None:
        return None

    def reconfigure(self, workloads: Sequence[Workload]) -> None:
        return
