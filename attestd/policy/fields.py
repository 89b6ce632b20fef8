"""Is this value of a policy document what its key demands?

A policy is refused rather than guessed at: an unknown key is named with the nearest known one, a key whose
time has not come is named as such, a wrong type is refused at its full path (`grant[0].ttl`), and a list is
never empty.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from attestd.tables import nearest
from tpm.errors import PolicyError

REGISTERS = range(24)
"""The registers that a TPM of the PC Client profile has."""

MAX_TEXT = 1024
_REGISTER_KEY = re.compile(r"0|[1-9]|1[0-9]|2[0-3]")
_SHOWN = 80
_NO_LATER: Mapping[str, str] = {}

T = TypeVar("T")


def refusal(reason: str, path: str, *, expected: str, found: object, step: str) -> PolicyError:
    """One line: where it stands, what was expected, what was found, what to do next."""
    return PolicyError(reason, f"{path}: expected {expected}, found {show(found)}; {step}")


def show(value: object) -> str:
    """A value as it may stand in a message: escaped and short."""
    if value is None:
        return "nothing"
    text = repr(value) if not isinstance(value, str) else '"' + repr(value)[1:-1] + '"'
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def later(path: str, what: str) -> PolicyError:
    """The refusal of a feature that this version does not have; `what` says what brings it."""
    return PolicyError(
        "feature_unsupported",
        f"{path} is not supported by this version: it comes with {what}; remove it from this policy",
    )


class Fields:
    """One table of the document, whose keys are known ones; `path` is empty for the document itself."""

    __slots__ = ("_values", "path")

    def __init__(
        self, values: object, path: str, *, known: Collection[str], not_yet: Mapping[str, str] = _NO_LATER
    ) -> None:
        self._values = typed(values, dict, path)
        self.path = path
        for key in self._values:
            if key in not_yet:
                raise later(self.at(key), not_yet[key])
            if key not in known:
                raise _unknown(self.at(show(key)[1:-1]), key, known)

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return key in self._values

    def value(self, key: str) -> object:
        """The value as TOML gave it; a missing key is refused."""
        if key not in self._values:
            raise PolicyError("key_missing", f"{self.at(key)}: expected a value, found none; add {key} = …")
        return self._values[key]

    def text(self, key: str, *, default: str | None = None) -> str:
        if default is not None and key not in self._values:
            return default
        return plain_text(self.value(key), self.at(key))

    def choice(self, key: str, allowed: Collection[str], *, default: str | None = None) -> str:
        chosen = self.text(key, default=default)
        if chosen not in allowed:
            raise refusal(
                "value_wrong", self.at(key), expected=one_of(allowed), found=chosen, step="write one of these"
            )
        return chosen

    def items(self, key: str) -> tuple[tuple[str, object], ...]:
        """The list's entries, each with its path. Empty means error."""
        return entries(self.value(key), self.at(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different texts."""
        found = tuple(plain_text(value, path) for path, value in self.items(key))
        _no_repeats(found, self.at(key))
        return found

    def registers(self, key: str) -> tuple[int, ...]:
        """A list of different registers, in ascending order."""
        found = tuple(_register(value, path) for path, value in self.items(key))
        _no_repeats(found, self.at(key))
        return tuple(sorted(found))

    def members(self, key: str) -> tuple[tuple[str, object], ...]:
        """A table whose keys the author chooses: its keys and values. Empty means error."""
        found = typed(self.value(key), dict, self.at(key))
        if not found:
            raise _empty(self.at(key))
        return tuple(found.items())


def typed(value: object, kind: type[T], path: str) -> T:
    """The value, which is of exactly this type (true is no integer)."""
    if type(value) is not kind:
        found = _TYPE_NAMES.get(type(value), "a date or time")
        raise PolicyError(
            "type_wrong", f"{path}: expected {_TYPE_NAMES[kind]}, found {found}; write {_TYPE_NAMES[kind]}"
        )
    return value


def plain_text(value: object, path: str) -> str:
    """Text on one line, not empty, without control characters."""
    text = typed(value, str, path)
    if not text or len(text) > MAX_TEXT or not text.isprintable():
        raise refusal(
            "value_wrong",
            path,
            expected=f"1 to {MAX_TEXT} printable characters",
            found=text,
            step="shorten it or remove what cannot be printed",
        )
    return text


def entries(value: object, path: str) -> tuple[tuple[str, object], ...]:
    """A list's entries, each with its path. Empty means error."""
    found = typed(value, list, path)
    if not found:
        raise _empty(path)
    return tuple((f"{path}[{index}]", entry) for index, entry in enumerate(found))


def matching(value: str, pattern: re.Pattern[str], path: str) -> str:
    """The value, which matches from its first to its last character."""
    if pattern.fullmatch(value) is None:
        raise refusal(
            "value_wrong", path, expected=f"text like {pattern.pattern}", found=value, step="choose another"
        )
    return value


def register_key(key: str, path: str) -> int:
    """The register that a key of [pcrs] names: "0" to "23", written in no other way."""
    if _REGISTER_KEY.fullmatch(key) is None:
        raise refusal(
            "register_wrong",
            path,
            expected="a register from 0 to 23",
            found=key,
            step="write it as a plain decimal number",
        )
    return int(key)


def one_of(words: Collection[str]) -> str:
    return " or ".join(f'"{word}"' for word in words)


def _register(value: object, path: str) -> int:
    number = typed(value, int, path)
    if number not in REGISTERS:
        raise refusal(
            "register_wrong", path, expected="a register from 0 to 23", found=number, step="correct it"
        )
    return number


def _no_repeats(found: tuple[object, ...], path: str) -> None:
    if len(set(found)) != len(found):
        twice = next(value for index, value in enumerate(found) if value in found[:index])
        raise refusal("value_twice", path, expected="different values", found=twice, step="name it once")


def _empty(path: str) -> PolicyError:
    return refusal(
        "list_empty", path, expected="at least one entry", found="none", step="fill it or remove the key"
    )


def _unknown(path: str, key: str, known: Collection[str]) -> PolicyError:
    near = nearest(key, known)
    step = f"did you mean {near}?" if near is not None else f"known here: {', '.join(sorted(known))}"
    return PolicyError("key_unknown", f"{path}: this key is not known here; {step}")


_TYPE_NAMES: Mapping[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a decimal number",
    str: "text",
    list: "a list",
    dict: "a table",
}
