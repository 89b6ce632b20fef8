"""Is this TOML table what we expect: known keys only, each of its type?

A typing error in a configuration file must stop the start, never fall back to a default: unknown keys are
refused with the nearest known one, and a value of another type is refused by its key's full name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from attestd.clock import parse_duration
from tpm.errors import PolicyError

_TYPE_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a decimal number",
    str: "text",
    list: "a list",
    dict: "a table",
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most probably meant, or None if nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


class Table:
    """One table of a TOML document. `source` is the file as the user named it; the top table has no name."""

    __slots__ = ("_values", "name", "source")

    def __init__(
        self, values: Mapping[str, Any], *, source: str, name: str = "", known: Iterable[str]
    ) -> None:
        self._values = values
        self.source = source
        self.name = name
        known = tuple(known)
        for key in values:
            if key not in known:
                raise self.refusal(key, "config_unknown_key", _unknown(key, known))

    def refusal(self, key: str, reason: str, what: str) -> PolicyError:
        """The error for this key, in one line that begins with where it stands."""
        place = f"{_heading(self.name)} {key}" if self.name else key
        return PolicyError(reason, f"{self.source}: {place} {what}")

    def has(self, key: str) -> bool:
        return key in self._values

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as TOML gave it, of whatever type; the caller decides."""
        return self._values.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        """The key's non-empty text; without a default the key must be there."""
        value = self._typed(key, str, default)
        if not value:
            raise self.refusal(key, "config_value", "is empty; give it a value or leave the line out")
        return str(value)

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._typed(key, bool, default))

    def integer(self, key: str, default: int, *, least: int, most: int) -> int:
        value = int(self._typed(key, int, default))
        if not least <= value <= most:
            raise self.refusal(key, "config_value", f"is {value}; it must be {least} to {most}")
        return value

    def seconds(self, key: str, default: str, *, least: int, most: int) -> int:
        """A duration like "60s" or "10m", in seconds."""
        written = self.text(key, default)
        try:
            value = parse_duration(written)
        except ValueError:
            raise self.refusal(
                key, "config_value", f'is "{written}"; write a duration like "60s", "10m" or "1h"'
            ) from None
        if not least <= value <= most:
            raise self.refusal(key, "config_value", f"is {written}; it must be {least} to {most} seconds")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of text; a missing key is an empty list."""
        values = self._typed(key, list, [])
        for value in values:
            if not isinstance(value, str):
                raise self.refusal(key, "config_type", f"holds {_named(value)}; each entry must be text")
        return tuple(values)

    def table(self, key: str, known: Iterable[str]) -> Table:
        """The table under this key; a missing one is empty."""
        values = self._typed(key, dict, {})
        return Table(values, source=self.source, name=f"{self.name}.{key}" if self.name else key, known=known)

    def tables(self, key: str, known: Iterable[str]) -> tuple[Table, ...]:
        """The tables of [[key]], in their order; a missing key is none. Each says which one it is."""
        found = []
        for number, values in enumerate(self._typed(key, list, []), start=1):
            if not isinstance(values, dict):
                raise self.refusal(key, "config_type", f"holds {_named(values)}; write tables, [[{key}]]")
            found.append(Table(values, source=self.source, name=f"[{key}] {number}", known=known))
        return tuple(found)

    def _typed(self, key: str, kind: type, default: Any) -> Any:
        value = self._values.get(key, default)
        if value is None:
            raise self.refusal(key, "config_missing_key", "is missing; add it")
        if type(value) is not kind:  # isinstance would take true for an integer
            raise self.refusal(key, "config_type", f"is {_named(value)}; it must be {_TYPE_NAMES[kind]}")
        return value


def _heading(name: str) -> str:
    """`[limits]`, or `[[resource]] 2` for the second of several tables."""
    inner, bracket, number = name.rpartition("]")
    return f"[{inner}]]{number}" if bracket else f"[{name}]"


def _named(value: object) -> str:
    return _TYPE_NAMES.get(type(value), "a date or time")


def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = nearest(key, known)
    if near is not None:
        return f"is not a key that is known here; did you mean {near}?"
    return f"is not a key that is known here; known are {', '.join(sorted(known))}"
