"""Where does what is held go besides the Workload API?"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from attestd.agent.holdings import Holdings
from attestd.agent.settings import Workload


class Outlet(Protocol):
    """`delivery.files.Delivery` is one. `show` and `due` are called by one thread, `reconfigure`
    by any; `troubles` says by agent what could not be done, and is tried again."""

    troubles: Mapping[str, str]

    def show(self, holdings: Holdings, *, now: int) -> None: ...

    def due(self) -> int | None: ...

    def reconfigure(self, workloads: Sequence[Workload]) -> None: ...


class Nowhere:
    """For a machine that delivers nothing else."""

    def __init__(self) -> None:
        self.troubles: Mapping[str, str] = {}

    def show(self, holdings: Holdings, *, now: int) -> None:
        return

    def due(self) -> int | None:
        return None

    def reconfigure(self, workloads: Sequence[Workload]) -> None:
        return
