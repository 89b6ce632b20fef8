"""Which other parties does the token endpoint know: whose users are believed, and who may ask about tokens?

Agents are not among them: a policy's grants are their registration.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from attestd.addresses import is_private, issuer_fault
from attestd.tables import Table

DISCOVERY: Literal["discovery"] = "discovery"
_FILE = "file:"


@dataclass(frozen=True, slots=True)
class SubjectIssuer:
    """A users' OpenID Provider. `audience` is what a user's token must be meant for.

    `jwks` is a file of its keys, or "discovery": they are fetched from the issuer alone, and from an address
    inside a private network or this machine only with `allow_private`.
    """

    issuer: str
    audience: str
    jwks: Path | Literal["discovery"]
    allow_private: bool


@dataclass(frozen=True, slots=True)
class Resource:
    """A protected resource: it may introspect tokens for its audience.

    It proves itself by a key of its file, and names itself `client_id` where it does so.
    """

    audience: str
    jwks: Path
    client_id: str


def read_subject_issuers(top: Table, folder: Path, *, external_url: str) -> tuple[SubjectIssuer, ...]:
    """[[subject_issuer]], each issuer once. Files are not opened here."""
    found: dict[str, SubjectIssuer] = {}
    for table in top.tables("subject_issuer", tuple(field.name for field in fields(SubjectIssuer))):
        one = SubjectIssuer(
            issuer=table.text("issuer"),
            audience=_one(table, "audience"),
            jwks=_keys_of(table, folder),
            allow_private=table.flag("allow_private", False),
        )
        fault = issuer_fault(one.issuer)
        if fault is not None:
            raise table.refusal("issuer", "config_value", f'is "{one.issuer}"; {fault}')
        if one.issuer == external_url:
            raise table.refusal(
                "issuer", "config_value", "is this service itself, which has no users; remove it"
            )
        if (
            one.jwks == DISCOVERY
            and not one.allow_private
            and is_private(urlsplit(one.issuer).hostname or "")
        ):
            raise table.refusal(
                "issuer",
                "config_value",
                f'is "{one.issuer}", a private address; set allow_private = true if its keys are to be '
                'fetched there, or jwks = "file:…"',
            )
        _refuse_twice(table, "issuer", one.issuer, found)
        found[one.issuer] = one
    return tuple(found.values())


def read_resources(top: Table, folder: Path) -> tuple[Resource, ...]:
    """[[resource]], each client_id once. Files are not opened here."""
    found: dict[str, Resource] = {}
    for table in top.tables("resource", tuple(field.name for field in fields(Resource))):
        audience = _one(table, "audience")
        client_id = _one(table, "client_id", audience)
        keys = _key_file(table, folder, instead="")
        _refuse_twice(table, "client_id" if table.has("client_id") else "audience", client_id, found)
        found[client_id] = Resource(audience=audience, jwks=keys, client_id=client_id)
    return tuple(found.values())


def _keys_of(table: Table, folder: Path) -> Path | Literal["discovery"]:
    if table.text("jwks") == DISCOVERY:
        return DISCOVERY
    return _key_file(table, folder, instead='"discovery" or ')


def _key_file(table: Table, folder: Path, *, instead: str) -> Path:
    written = table.text("jwks")
    path = written.removeprefix(_FILE)
    if path in ("", written) or path.startswith("//"):
        raise table.refusal("jwks", "config_value", f'is "{written}"; write {instead}"file:PATH"')
    return folder / path


def _one(table: Table, key: str, default: str | None = None) -> str:
    """A text that is compared whole."""
    text = table.text(key, default)
    if not text.isprintable() or " " in text or "*" in text:
        raise table.refusal(key, "config_value", f"is {text!r}; write one name without spaces and wildcards")
    return text


def _refuse_twice(table: Table, key: str, value: str, found: Collection[str]) -> None:
    if value in found:
        raise table.refusal(key, "config_value", f'is "{value}", which another entry has; leave one of them')
