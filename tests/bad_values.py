"""Every way to spoil one member of a JSON document, as the bytes that are sent.

`spoilt(document)` puts each bad value in the place of each member; `without`, `with_unknown` and
`with_duplicate` take members away, add one, and give one twice. Values that JSON libraries refuse to write
are written by hand.
"""

import json
from collections.abc import Iterator
from typing import Any

from attestd.wire import join

MEGABYTE = 1_000_000

BAD_VALUES: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "zero": b"0",
    "one": b"1",
    "minus_one": b"-1",
    "fraction": b"1.5",
    "one_point_zero": b"1.0",
    "exponent": b"1e3",
    "2^31": b"2147483648",
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "huge_number": b"1" + b"0" * 5000,
    "huge_exponent": b"1e999999999",
    "nan": b"NaN",
    "infinity": b"Infinity",
    "minus_infinity": b"-Infinity",
    "underscored": b"1_000",
    "empty_text": b'""',
    "text": b'"x"',
    "number_as_text": b'"1"',
    "arabic_digits": '"١٢٣"'.encode(),
    "bare_arabic_digits": "١٢٣".encode(),
    "lone_surrogate": rb'"\ud800"',
    "nul": rb'"\u0000"',
    "raw_nul": b'"\x00"',
    "raw_invalid_utf8": b'"\xff\xfe"',
    "line_separator": '"\u2028"'.encode(),
    "crlf": rb'"a\r\nb"',
    "escape_sequence": rb'"\u001b[31mred"',
    "list": b"[]",
    "list_of_null": b"[null]",
    "object": b"{}",
    "object_with_members": b'{"a":1,"b":[2]}',
    "deep_list": b"[" * 100 + b"]" * 100,
    "very_deep_list": b"[" * 100_000 + b"]" * 100_000,
    "deep_object": b'{"a":' * 100 + b"1" + b"}" * 100,
    "megabyte_of_text": b'"' + b"A" * MEGABYTE + b'"',
    "megabyte_of_list": b"[" + b"0," * (MEGABYTE // 2) + b"0]",
}
"""What to send instead, by name."""

NEVER_JSON = frozenset(
    {
        "fraction",
        "one_point_zero",
        "exponent",
        "2^63",
        "2^64",
        "huge_number",
        "huge_exponent",
        "nan",
        "infinity",
        "minus_infinity",
        "underscored",
        "bare_arabic_digits",
        "lone_surrogate",
        "nul",
        "raw_nul",
        "raw_invalid_utf8",
        "deep_list",
        "very_deep_list",
        "deep_object",
        "megabyte_of_list",
    }
)
"""Those that the strict loader refuses wherever they stand; the others may be good for some member."""

_MARK = "\x01here\x01"


def pointers(document: Any, pointer: str = "") -> Iterator[str]:
    """The JSON pointer of every member and element, parents first."""
    children = document.items() if isinstance(document, dict) else enumerate(document)
    for key, child in children:
        place = join(pointer, key)
        yield place
        if isinstance(child, dict | list):
            yield from pointers(child, place)


def replaced(document: dict[str, Any], pointer: str, token: bytes) -> bytes:
    """The document's JSON with the raw token at the pointer."""
    copy = json.loads(json.dumps(document))
    holder, key = _holder(copy, pointer)
    holder[key] = _MARK
    return json.dumps(copy).encode().replace(json.dumps(_MARK).encode(), token)


def spoilt(document: dict[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """Pointer, name of the bad value and body, for each member and each bad value."""
    for pointer in pointers(document):
        for name, token in BAD_VALUES.items():
            yield pointer, name, replaced(document, pointer, token)


def without(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Each member of each object left out."""
    for pointer in pointers(document):
        copy = json.loads(json.dumps(document))
        holder, key = _holder(copy, pointer)
        if isinstance(holder, dict):
            del holder[key]
            yield pointer, json.dumps(copy).encode()


def with_unknown(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """One member too many in each object; the pointer is the object's."""
    for pointer in ("", *pointers(document)):
        copy = json.loads(json.dumps(document))
        holder = _at(copy, pointer)
        if isinstance(holder, dict):
            holder["unknown_member"] = 1
            yield pointer, json.dumps(copy).encode()


def with_duplicate(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Each member of each object given twice, with the same value."""
    for pointer in pointers(document):
        copy = json.loads(json.dumps(document))
        holder, key = _holder(copy, pointer)
        if isinstance(holder, dict):
            member = f"{json.dumps(key)}: {json.dumps(holder[key])}"
            holder[key] = _MARK
            written = json.dumps(copy).replace(
                f"{json.dumps(key)}: {json.dumps(_MARK)}", f"{member}, {member}"
            )
            yield pointer, written.encode()


def _keys(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _at(document: Any, pointer: str) -> Any:
    for part in _keys(pointer):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _holder(document: Any, pointer: str) -> tuple[Any, Any]:
    parent, _, _ = pointer.rpartition("/")
    holder, key = _at(document, parent), _keys(pointer)[-1]
    return holder, int(key) if isinstance(holder, list) else key
