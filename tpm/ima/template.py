"""Which fields has an entry of this template, and over which bytes is its template digest made?

The named templates are the kernel's; a custom one is named by its fields, as `d-ng|n-ng|sig`. Source: the
kernel's `ima_template.c`; digests as `ima_calc_field_array_hash` makes them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tpm.errors import NoncanonicalError, StructureError
from tpm.ima.fields import FIELDS, Field

MAX_FIELDS = 16
MAX_NAME = 160
"""Bytes of a template's name; a custom one of sixteen fields fits."""

MAX_DATA = 64 * 1024
"""Bytes of one entry's data; the longest path has 4096, certificates and signatures a few thousand."""

LEGACY_DIGEST = 20
LEGACY_NAME = 255
_LEGACY_PADDED = 256

_U32 = struct.Struct("<I")
_pack, _unpack = _U32.pack, _U32.unpack_from

# By far the commonest beginning: a d-ng of SHA-256, then the length of a name.
_SHA256_HEAD = b"\x28\0\0\0sha256:\0"
_NAME_FROM = 4 + 40 + 4
_head = struct.Struct("<12s32xI").unpack_from


@dataclass(frozen=True, slots=True)
class Template:
    """A template as the kernel writes its name. An entry's data is its fields, each with a 32-bit
    little-endian length before it; `legacy` alone ("ima") has a 20-byte digest and a name, without lengths
    and without a NUL.
    """

    name: str
    fields: tuple[Field, ...]
    legacy: bool = False
    usual: bool = False

    def split(self, data: bytes) -> tuple[bytes, ...]:
        """The values of the fields, names with their NUL. StructureError "truncated", "bad_field";
        NoncanonicalError "trailing_bytes".
        """
        if self.legacy:
            return self._split_legacy(data)
        values = []
        offset, end = 0, len(data)
        for field in self.fields:
            if offset + 4 > end:
                raise StructureError("truncated", f"An entry of {self.name} ends before its {field.name}.")
            start = offset + 4
            offset = start + _unpack(data, offset)[0]
            if offset > end:
                raise StructureError("truncated", f"An entry of {self.name} ends within its {field.name}.")
            value = data[start:offset]
            if not field.holds(value):
                raise StructureError(
                    "bad_field", f"An entry of {self.name} has no {field.name} in its place."
                )
            values.append(value)
        if offset != end:
            raise NoncanonicalError(
                "trailing_bytes", f"An entry of {self.name} has bytes after its last field."
            )
        return tuple(values)

    def check(self, data: bytes) -> None:
        """As `split`, for whoever needs no values; fast where entries are of the commonest kind."""
        end = len(data)
        if self.usual and end > _NAME_FROM:
            head, size = _head(data)
            stop = _NAME_FROM + size
            if head == _SHA256_HEAD and data.find(0, _NAME_FROM) == stop - 1:
                if stop == end and len(self.fields) == 2:
                    return
                if stop + 4 <= end and len(self.fields) == 3 and stop + 4 + _unpack(data, stop)[0] == end:
                    return
        self.split(data)

    def can_hold(self, values: Sequence[bytes]) -> bool:
        """Are values, each of which holds, together what one entry can have?"""
        if self.legacy:
            return len(values[0]) == LEGACY_DIGEST and len(values[1]) <= LEGACY_NAME + 1
        return sum(map(len, values)) + 4 * len(values) <= MAX_DATA

    def join(self, values: Sequence[bytes]) -> bytes:
        """The data of an entry with these values, which hold."""
        if self.legacy:
            return values[0] + values[1][:-1]
        return b"".join([part for value in values for part in (_pack(len(value)), value)])

    def hashed(self, data: bytes) -> bytes:
        """What the template digest is made over: the data itself, but for "ima" its name padded with
        zeros.
        """
        return data.ljust(LEGACY_DIGEST + _LEGACY_PADDED, b"\0") if self.legacy else data

    def _split_legacy(self, data: bytes) -> tuple[bytes, ...]:
        name = data[LEGACY_DIGEST:]
        if len(data) < LEGACY_DIGEST or len(name) > LEGACY_NAME or 0 in name:
            raise StructureError(
                "bad_field", "An entry of ima is not a SHA-1 digest and a name of 255 bytes at most."
            )
        return data[:LEGACY_DIGEST], name + b"\0"


_USUAL = frozenset({"ima-ng", "ima-sig"})


def _template(name: str, fields: str) -> Template:
    return Template(
        name, tuple(FIELDS[field] for field in fields.split("|")), legacy=name == "ima", usual=name in _USUAL
    )


TEMPLATES: Mapping[str, Template] = {
    name: _template(name, fields)
    for name, fields in {
        "ima": "d|n",
        "ima-ng": "d-ng|n-ng",
        "ima-sig": "d-ng|n-ng|sig",
        "ima-ngv2": "d-ngv2|n-ng",
        "ima-sigv2": "d-ngv2|n-ng|sig",
        "ima-buf": "d-ng|n-ng|buf",
        "ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig",
        "evm-sig": "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
    }.items()
}


def template_of(name: bytes) -> Template:
    """The template of this name, known or custom; StructureError "unknown_template"."""
    text = name.decode("ascii", "replace")
    if text in TEMPLATES:
        return TEMPLATES[text]
    fields = text.split("|")
    if len(name) > MAX_NAME or len(fields) > MAX_FIELDS or not all(field in FIELDS for field in fields):
        shown = ascii(text[:40])
        raise StructureError(
            "unknown_template",
            f"{shown} is no template of IMA and no list of its fields ({'|'.join(FIELDS)}).",
        )
    return _template(text, text)
