"""How many requests, how long, with which end?

Labels come from our own tables only (routes, statuses, codes), so a client cannot make new ones.
"""

import threading
from pathlib import Path
from typing import Final

from attestd.web.exchange import Exchange

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of this process, or of all workers where `shared` is the directory that they write to."""

    def __init__(self, shared: Path | None = None) -> None:
        # Imported here: the library decides at its import whether values live in memory or in files, by a
        # variable that the server sets before it starts several workers.
        import prometheus_client as prometheus

        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._prometheus = prometheus
        self._shared = shared
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "attestd_requests", "Requests answered.", ("route", "status", "code"), registry=self._registry
        )
        self._seconds = prometheus.Histogram(
            "attestd_request_seconds",
            "From a whole request to its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._counters: dict[tuple[str, int, str], prometheus.Counter] = {}
        self._lock = threading.Lock()

    def count(self, exchange: Exchange, status: int, *, seconds: float) -> None:
        key = (exchange.route, status, exchange.code)
        counter = self._counters.get(key)
        if counter is None:
            with self._lock:
                counter = self._counters.setdefault(key, self._requests.labels(*map(str, key)))
        counter.inc()
        self._seconds.labels(exchange.route).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        if self._shared is None:
            return self._prometheus.generate_latest(self._registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._prometheus.CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        return self._prometheus.generate_latest(registry)
