"""Is this a template that gives each device a SPIFFE ID of its own?

SPIFFE-ID, section 2: `spiffe://<trust domain>/<segments>`, a segment has letters, digits, `.`, `_` and `-`,
and is neither `.` nor `..`. The path below `/spire/` is reserved. Nothing is percent-encoded and nothing is a
wildcard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestd.policy.fields import refusal
from attestd.policy.labels import SEGMENT
from attestd.spiffe import MAX_LENGTH
from tpm.errors import PolicyError

DEFAULT = "spiffe://{trust_domain}/agent/{agent}/{device_id}"
PREFIX = "spiffe://{trust_domain}/"
RESERVED = "spire"

_PIECES = re.compile(r"(\{[^{}]*\})")
_LITERAL = re.compile(r"[A-Za-z0-9._-]*")
_PLAIN = ("trust_domain", "agent", "device_id", "name")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """What stands for a value: `name` is one of the known words, `label` the key where `name` is "label"."""

    name: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was accepted; `segments` lie below the trust domain, of literals and placeholders."""

    text: str
    segments: tuple[tuple[str | Placeholder, ...], ...]


def parse_template(text: str, path: str) -> Template:
    """The template at this key path of a policy.

    Device identifiers have one length, names have many: a name that stood beside another placeholder in one
    segment could give two devices the same ID, so that is refused.
    """
    # 1. It names our own trust domain and nobody else's.
    if not text.startswith(PREFIX) or len(text) > MAX_LENGTH:
        raise _wrong(path, f'a SPIFFE ID that begins "{PREFIX}"', text, f"write it like {DEFAULT}")
    # 2. Each segment is a valid one, made of literals and known placeholders.
    segments = tuple(_segment(segment, path) for segment in text[len(PREFIX) :].split("/"))
    # 3. The reserved path stays reserved.
    if segments[0] == (RESERVED,):
        raise _wrong(path, "a path outside /spire/, which is reserved", text, "choose another path")
    # 4. No two devices share an ID.
    if not any(_tells_devices_apart(segment) for segment in segments):
        raise _wrong(
            path,
            "{device_id}, or {name} without another placeholder in its segment",
            text,
            "add it, so that no two devices share an ID",
        )
    return Template(text=text, segments=segments)


def _segment(text: str, path: str) -> tuple[str | Placeholder, ...]:
    if text in ("", ".", ".."):
        raise _wrong(path, "path segments that are neither empty nor . nor ..", text, "correct it")
    return tuple(_piece(piece, path) for piece in _PIECES.split(text) if piece)


def _piece(text: str, path: str) -> str | Placeholder:
    if text.startswith("{") and text.endswith("}"):
        return _placeholder(text[1:-1], path)
    if _LITERAL.fullmatch(text) is None:
        raise _wrong(path, "letters, digits, '.', '_' and '-' in a segment", text, "remove the rest")
    return text


def _placeholder(word: str, path: str) -> Placeholder:
    name, colon, key = word.partition(":")
    if name == "label" and SEGMENT.fullmatch(key):
        return Placeholder(name, key)
    if name in _PLAIN and not colon:
        return Placeholder(name)
    known = ", ".join(f"{{{known}}}" for known in _PLAIN)
    raise _wrong(path, f"one of {known} and {{label:KEY}}", f"{{{word}}}", "use one of these")


def _tells_devices_apart(segment: tuple[str | Placeholder, ...]) -> bool:
    names = [piece.name for piece in segment if isinstance(piece, Placeholder)]
    return "device_id" in names or names == ["name"]


def _wrong(path: str, expected: str, found: str, step: str) -> PolicyError:
    return refusal("template_wrong", path, expected=expected, found=found, step=step)
