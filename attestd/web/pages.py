"""What can be read by anyone? Health, metrics, the interface's description, published keys."""

from collections.abc import Callable, Mapping
from typing import Final

from attestd.web.answers import JSON
from attestd.web.metrics import MEDIA_TYPE, Metrics
from attestd.web.openapi import describe
from attestd.web.routes import Document, Form, Page, Verb
from attestd.web.seam import Published, WebService
from attestd.wire import Problem, dump_json

_OPERATORS = "none: for whoever reaches this address; the shipped proxy configuration keeps it inside"
_PUBLIC = "none: public"


PUBLISHED_SECONDS: Final = 60
"""How long a relying party may keep a published document."""


def pages_of(
    service: WebService,
    actions: tuple[Verb | Form, ...],
    metrics: Metrics,
    more: Mapping[str, Callable[[int], Published]],
) -> tuple[Page, ...]:
    """Every page, the published documents included; one of `more` stands for the service's of that path."""
    described: list[Document] = []  # made once, when everything that it describes is known
    pages = (
        Page("/healthz", lambda now: _health(service, now), _OPERATORS, "It answers; unsafe modes in use."),
        Page("/readyz", lambda now: _ready(service, now), _OPERATORS, "Requests can be handled here."),
        Page("/metrics", lambda now: Document(metrics.render(), MEDIA_TYPE), _OPERATORS, "For Prometheus."),
        Page("/openapi.json", lambda now: described[0], _PUBLIC, "This description."),
        *(_published(path, render) for path, render in {**service.documents(), **more}.items()),
    )
    described.append(Document(describe((*actions, *pages), url=service.config.external_url), JSON))
    return pages


def _published(path: str, render: Callable[[int], Published]) -> Page:
    def document(now: int) -> Document:
        made = render(now)
        return Document(made.body, JSON, made.etag, PUBLISHED_SECONDS)

    return Page(path, document, _PUBLIC, "Published for relying parties.")


def _health(service: WebService, now: int) -> Document:
    return Document(dump_json({"status": "ok", "unsafe": list(service.unsafe_modes(now=now))}), JSON)


def _ready(service: WebService, now: int) -> Document:
    checks = dict(service.ready(now=now))
    if not all(checks.values()):
        missing = ", ".join(name for name, good in checks.items() if not good)
        problem = Problem("unavailable", f"Not ready: {missing}.", cause="not_ready")
        problem.recorded = True  # a probe, not a refused device
        raise problem
    return Document(dump_json({"status": "ready", "checks": checks}), JSON)
