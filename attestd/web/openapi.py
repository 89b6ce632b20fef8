"""How is the interface described for programs? Made from the table of routes and the models themselves."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic.json_schema import models_json_schema

from attestd.oauth.errors import STATUS as OAUTH_STATUS
from attestd.web.answers import JSON, PROBLEM
from attestd.web.routes import Entry, Form, Page, Verb
from attestd.wire import STATUS, dump_json

FORM = "application/x-www-form-urlencoded"
_OAUTH_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"enum": list(OAUTH_STATUS)}, "error_description": {"type": "string"}},
}
_REF = "#/components/schemas/{model}"


def describe(table: Iterable[Entry], *, url: str) -> bytes:
    """An OpenAPI 3.1 document, as JSON."""
    table = tuple(table)
    models = [(entry.model, "validation") for entry in table if isinstance(entry, Verb)]
    _, schemas = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    return dump_json(
        {
            "openapi": "3.1.0",
            "info": {"title": "attestd", "version": _version()},
            "servers": [{"url": url}],
            "paths": {entry.path: _path(entry) for entry in table},
            "components": {
                "schemas": {**schemas.get("$defs", {}), "Problem": _problem(), "OAuthError": _OAUTH_ERROR}
            },
        }
    )


def _path(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": entry.summary,
        "description": f"Authentication: {entry.authentication}",
    }
    if isinstance(entry, Page):
        return {"get": {**told, "responses": {"200": {"description": "The document."}, **_refusal()}}}
    if isinstance(entry, Form):
        return {"post": {**told, **_form(entry)}}
    schema = {"$ref": _REF.format(model=entry.model.__name__)}
    body = {"required": True, "content": {JSON: {"schema": schema}}}
    answer = {"description": "Done.", "content": {JSON: {"schema": {"type": "object"}}}}
    return {"post": {**told, "requestBody": body, "responses": {str(entry.status): answer, **_refusal()}}}


def _form(entry: Form) -> dict[str, Any]:
    """RFC 6749: parameters in, members or an error out."""
    parameters = {"type": "object", "additionalProperties": {"type": "string"}}
    body = {"requestBody": {"required": True, "content": {FORM: {"schema": parameters}}}}
    answer = {"description": "Granted.", "content": {JSON: {"schema": {"type": "object"}}}}
    refused = {"$ref": _REF.format(model="OAuthError")}
    default = {"description": "Refused.", "content": {JSON: {"schema": refused}}}
    return {**(body if entry.takes_form else {}), "responses": {"200": answer, "default": default}}


def _refusal() -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="Problem")}
    return {"default": {"description": "Refused.", "content": {PROBLEM: {"schema": schema}}}}


def _problem() -> dict[str, Any]:
    finding = {
        "type": "object",
        "required": ["code", "subject"],
        "properties": {
            "code": {"type": "string"},
            "subject": {"type": "string"},
            "expected": {"type": "array", "items": {"type": "string"}},
            "found": {"type": ["string", "null"]},
        },
    }
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {"enum": list(STATUS)},
            "request_id": text,
            "pointer": text,
            "findings": {"type": "array", "items": finding},
        },
    }


def _version() -> str:
    try:
        return version("attestd-tpm")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
