"""What does a field of an IMA template hold: as bytes, and as the kernel prints it?

The fields and their two forms are those of the kernel's `security/integrity/ima/ima_template_lib.c`. Each is
checked for its shape only: whether a digest is strong, or a signature holds, is asked elsewhere.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_DIGEST = 64
"""Bytes of the longest digest that the kernel knows."""

_DIGEST = re.compile(rb"([a-z0-9-]{0,16}):\x00(.{0,64})", re.DOTALL)
_TYPED_DIGEST = re.compile(rb"((?:ima|verity):[a-z0-9-]{1,16}):\x00(.{0,64})", re.DOTALL)
_DIGEST_TEXT = re.compile(rb"(?:([a-z0-9-]{1,16}):)?([0-9a-f]*)")
_TYPED_TEXT = re.compile(rb"((?:ima|verity):[a-z0-9-]{1,16}):([0-9a-f]*)")
HEX_DIGITS = b"0123456789abcdef"
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class Field:
    """One kind of field. `holds` says whether these bytes can be its value; `parse` reads what the kernel
    prints, None where it prints no such thing; `show` prints a value that holds.

    `is_text` marks a name of any bytes but NUL, which may hold blanks and line breaks when printed.
    """

    name: str
    holds: Callable[[bytes], bool]
    parse: Callable[[bytes], bytes | None]
    show: Callable[[bytes], bytes]
    is_text: bool = False


def unhex(text: bytes) -> bytes | None:
    """The bytes of lower-case hex, as the kernel prints it; None for anything else."""
    if len(text) % 2 or text.translate(None, HEX_DIGITS):
        return None
    return unhexlify(text)


def _is_name(value: bytes) -> bool:
    return value.find(0) == len(value) - 1 and len(value) > 0


def _parse_name(text: bytes) -> bytes | None:
    return None if 0 in text else text + b"\0"


def _show_name(value: bytes) -> bytes:
    return value[:-1]


def _show_hex(value: bytes) -> bytes:
    return value.hex().encode()


def _is_plain_digest(value: bytes) -> bool:
    return len(value) in (16, 20)


def _parse_plain_digest(text: bytes) -> bytes | None:
    value = unhex(text)
    return value if value is not None and _is_plain_digest(value) else None


def _is_digest(value: bytes) -> bool:
    return _DIGEST.fullmatch(value) is not None


def _parse_digest(text: bytes) -> bytes | None:
    """An algorithm that the kernel cannot name is printed as the digest alone."""
    return _digest_of(_DIGEST_TEXT.fullmatch(text))


def _digest_of(match: re.Match[bytes] | None) -> bytes | None:
    digest = unhex(match[2]) if match else None
    if match is None or digest is None or len(digest) > MAX_DIGEST:
        return None
    return (match[1] or b"") + b":\0" + digest


def _show_digest(value: bytes) -> bytes:
    name, _, digest = value.partition(b":\0")
    return (name + b":" if name else b"") + digest.hex().encode()


def _is_typed_digest(value: bytes) -> bool:
    return _TYPED_DIGEST.fullmatch(value) is not None


def _parse_typed_digest(text: bytes) -> bytes | None:
    return _digest_of(_TYPED_TEXT.fullmatch(text))


def _is_optional_digest(value: bytes) -> bool:
    return not value or _is_digest(value)


def _parse_optional_digest(text: bytes) -> bytes | None:
    return _parse_digest(text) if text else b""


def _show_optional_digest(value: bytes) -> bytes:
    return _show_digest(value) if value else b""


def _number(name: str, size: int) -> Field:
    """An unsigned number of this many bytes, little-endian, printed in decimal."""

    def parse(text: bytes) -> bytes | None:
        if not _NUMBER.fullmatch(text) or int(text) >> 8 * size:
            return None
        return int(text).to_bytes(size, "little")

    def show(value: bytes) -> bytes:
        return str(int.from_bytes(value, "little")).encode()

    return Field(name, lambda value: len(value) == size, parse, show)


def _opaque(name: str) -> Field:
    """Bytes that are printed as hex; none at all where there is nothing."""
    return Field(name, lambda value: True, unhex, _show_hex)


def _name(name: str) -> Field:
    return Field(name, _is_name, _parse_name, _show_name, is_text=True)


FIELDS: Mapping[str, Field] = {
    field.name: field
    for field in (
        Field("d", _is_plain_digest, _parse_plain_digest, _show_hex),
        Field("d-ng", _is_digest, _parse_digest, _show_digest),
        Field("d-ngv2", _is_typed_digest, _parse_typed_digest, _show_digest),
        Field("d-modsig", _is_optional_digest, _parse_optional_digest, _show_optional_digest),
        _name("n"),
        _name("n-ng"),
        *map(_opaque, ("sig", "modsig", "buf", "evmsig", "xattrlengths", "xattrvalues")),
        Field("xattrnames", lambda value: not value or _is_name(value), _parse_name, _show_name),
        _number("iuid", 4),
        _number("igid", 4),
        _number("imode", 2),
    )
}
"""Every field that the kernel knows, by the name that custom templates use."""
