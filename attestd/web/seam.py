"""What does the web layer need of the service behind it?"""

from collections.abc import Callable, Mapping
from typing import Protocol

from attestd.config import Config
from attestd.limits import RateLimits
from attestd.wire import Problem


class Published(Protocol):
    """A JSON document for relying parties; `etag` is quoted."""

    @property
    def body(self) -> bytes: ...

    @property
    def etag(self) -> str: ...


class WebService(Protocol):
    """Implemented by `attestd.service.Service`. Everything may be called by several threads at once."""

    @property
    def config(self) -> Config: ...

    @property
    def limits(self) -> RateLimits: ...

    def refuse(self, problem: Problem, *, now: int, request_id: str, source: str, path: str) -> None:
        """Record one refused request, unless `problem.recorded`; `path` is of the table or "unmatched"."""

    def unsafe_modes(self, *, now: int) -> tuple[str, ...]:
        """What is in use that weakens who becomes a device."""

    def ready(self, *, now: int) -> Mapping[str, bool]:
        """What has to be true before requests are sent here: store, keys, trust."""

    def documents(self) -> Mapping[str, Callable[[int], Published]]:
        """Each published document by its path; rendered from the time in milliseconds."""

    def maintain(self, now: int) -> object:
        """Housekeeping, once a second."""

    def close(self) -> None: ...
