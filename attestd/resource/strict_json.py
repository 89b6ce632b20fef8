"""What does this JSON say, if it says it in one way only?"""

import json
from typing import Any

_DEPTH = 32


def load_object(raw: bytes) -> dict[str, Any]:
    """An object; ValueError for anything else, for duplicate members, for NaN and for numbers that are no
    integers below 2^63."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_members,
            parse_float=_refuse,
            parse_constant=_refuse,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    _refuse_deep(value, _DEPTH)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) >= 1 << 63:
        raise ValueError("a number beyond 63 bits")
    return value


def _refuse(text: str) -> Any:
    raise ValueError("a number that is no integer")


def _refuse_deep(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            _refuse_deep(each, depth - 1)
