"""Where does what is held go besides the Workload API?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from attestd.agent.holdings import Holdings
from attestd.agent.settings import Workload


class Outlet(Protocol):
    """`delivery.files.Delivery` is one. `show`, `due` and `forget` are called by one thread, `reconfigure`
    by any; `troubles` says by agent what could not be done, and is tried again."""

    troubles: Mapping[str, str]

    def show(self, holdings: Holdings, *, now: int) -> None: ...

    def due(self) -> int | None: ...

    def forget(self, agents: Iterable[str]) -> None:
        """These may not have what an earlier agent left them either, from the next `show` on."""

    def reconfigure(self, workloads: Sequence[Workload]) -> None: ...


class Nowhere:
    """For a machine that delivers nothing else."""

    def __init__(self) -> None:
        self.troubles: Mapping[str, str] = {}

    def show(self, holdings: Holdings, *, now: int) -> None:
        return

    def due(self) -> int | None:
        return None

    def forget(self, agents: Iterable[str]) -> None:
        return

    def reconfigure(self, workloads: Sequence[Workload]) -> None:
        return
