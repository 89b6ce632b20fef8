"""Which paths are there, what does each take, and who may call it?

The table is the only way to a path: a rule that is not in it stops the start, and so does one that does not
say how its callers are authenticated.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel
from werkzeug.routing import Map

from attestd.oauth.answer import Answer
from attestd.oauth.errors import OAuthError
from attestd.oauth.request import Request


@dataclass(frozen=True, slots=True)
class Verb:
    """`POST path`: a JSON body of one model, handed to `call(service, body, now=…, request_id=…)`.

    `authentication` says in words what proves the caller ("none: …" where nothing has to). `cap` names the
    limit of the configuration for its body. `proves`: an answer means that the device has proven itself, so
    the request is not counted against its address.
    """

    path: str
    model: type[BaseModel]
    call: Callable[..., Mapping[str, Any]]
    authentication: str
    summary: str
    status: int = 201
    cap: Literal["body", "attestation_body"] = "body"
    proves: bool = False


class RecordRefusal(Protocol):
    """Keeps a refusal for the audit, unless `error.recorded`."""

    def __call__(self, error: OAuthError, *, now: int, request_id: str, source: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Form:
    """`POST path`: an endpoint of the authorization server, which answers as OAuth does.

    It takes a form, or no body where `takes_form` is false. Its refusals are `OAuthError`s, kept by `record`.
    """

    path: str
    call: Callable[[Request], Answer]
    record: RecordRefusal
    authentication: str
    summary: str
    takes_form: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """What a `GET` answers. `max_age` is in seconds; 0 is not to be stored. `etag` is quoted."""

    body: bytes
    media_type: str
    etag: str | None = None
    max_age: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """`GET path`: rendered from the time alone, in milliseconds."""

    path: str
    render: Callable[[int], Document]
    authentication: str
    summary: str


Entry = Verb | Form | Page


def check_table(table: Iterable[Entry]) -> None:
    """ValueError for a path named twice, or an entry without its authentication."""
    seen: set[str] = set()
    for entry in table:
        if not entry.authentication.strip():
            raise ValueError(f"{entry.path} does not say how its callers are authenticated")
        if entry.path in seen:
            raise ValueError(f"{entry.path} is declared twice")
        seen.add(entry.path)


def check_declared(rules: Map, table: Iterable[Entry]) -> None:
    """ValueError for a rule outside the table."""
    declared = {entry.path for entry in table}
    for rule in rules.iter_rules():
        if rule.rule not in declared:
            raise ValueError(f"{rule.rule} is not in the table of routes: declare it with its authentication")
