"""Which entries are in this printed list?

The kernel's `ascii_runtime_measurements`: per entry the register, the template digest, the template's name
and the fields, parted by blanks and ended by a line break. A path is printed as it is, so that a line break
in it looks like the end of an entry, and what follows it like another entry. The template digest decides: an
entry is the shortest run of lines whose fields hash to it. So a path of any bytes is read exactly, with these
limits:

- A violation has no template digest: it ends with its first line. (A forged line after it is covered by no
  register.)
- Beyond `MAX_BREAKS` line breaks in one path, and where joining lines has cost a list `MAX_EFFORT`, no
  further ones are joined; such a list is to be sent in its binary form.
- Blanks that a tool removed at the end of a line, where fields are empty, are not missed.
"""

from __future__ import annotations

import struct
from binascii import unhexlify
from collections.abc import Iterator

from tpm.errors import StructureError
from tpm.ima.entry import Record, constructor, is_violation
from tpm.ima.fields import unhex
from tpm.ima.template import MAX_DATA, TEMPLATES, Template, template_of
from tpm.structures.algorithms import HASHES, Hash

MAX_BREAKS = 32
MAX_EFFORT = 16 * 1024 * 1024
"""Bytes that are hashed again for entries of several lines, each trial counted as `_TRIAL` more."""

_TRIAL = 2048
MAX_LINE = 4 * MAX_DATA

_REGISTERS = {b"%2d" % pcr: pcr for pcr in range(24)}

# What most lines look like: read by `_Lines.fast`, with the same result as by `_Lines.entry`.
_USUAL_LINE = 8192
_USUAL_PARTS = {b"ima-ng": 5, b"ima-sig": 6}
_USUAL_TEMPLATES = {name: TEMPLATES[name.decode()] for name in _USUAL_PARTS}
_pack = struct.Struct("<I").pack
_DIGEST_HEADS = {
    name: (_pack(len(name) + 2 + known.size) + name + b":\0", 2 * known.size)
    for known in HASHES.values()
    for name in (known.name.encode(),)
}
_NO_HEAD = (b"", -1)


def read_ascii(raw: bytes, logged: Hash) -> Iterator[Record]:
    """The entries, whose template digests are of the hash `logged`, one at a time.

    StructureError "bad_line", "bad_register", "bad_digest", "unknown_template", "bad_field", "oversized";
    what came before was yielded.
    """
    reader = _Lines(logged)
    start, end = 0, len(raw)
    while start < end:
        stop = raw.find(b"\n", start)
        stop = end if stop < 0 else stop
        record = reader.fast(raw[start:stop])
        if record is None:
            record, stop = reader.entry(raw, start, stop)
        yield record
        start = stop + 1


def write_ascii(record: Record) -> bytes:
    """The entry as the kernel prints it, with its line break."""
    fields = zip(record.template.fields, record.template.split(record.data), strict=True)
    shown = [field.show(value) for field, value in fields]
    head = b"%2d %s %s" % (record.pcr, record.logged.hex().encode(), record.template.name.encode())
    return b" ".join([head, *shown]) + b"\n"


def printed_hash(raw: bytes) -> Hash:
    """The hash of the template digests, told by their length. StructureError "not_a_list"."""
    parts = raw[:256].lstrip(b" ").split(b" ", 2)
    digest = unhex(parts[1]) if len(parts) == 3 else None
    for known in HASHES.values():
        if digest is not None and len(digest) == known.size:
            return known
    raise StructureError(
        "not_a_list", "These bytes are no list of IMA: the first line has no template digest."
    )


class _Lines:
    """What is kept while one list is read: templates by name, heads of digests by algorithm, and how often
    lines were joined to see whether they are one entry.
    """

    def __init__(self, logged: Hash) -> None:
        self.new = constructor(logged)
        self.size = logged.size
        self.templates: dict[bytes, Template] = {}
        self.effort = 0

    def fast(self, line: bytes) -> Record | None:
        """The entry in this line if all is as usual: ima-ng or ima-sig, an intact digest, no blank in the
        path.
        """
        parts = line.split(b" ")
        if len(parts) < 5 or len(line) > _USUAL_LINE or len(parts) != _USUAL_PARTS.get(parts[2]):
            return None
        algorithm, _, digest = parts[3].partition(b":")
        head, size = _DIGEST_HEADS.get(algorithm, _NO_HEAD)
        pcr = _REGISTERS.get(parts[0])
        path = parts[4]
        if len(digest) != size or pcr is None or 0 in path or not digest.islower() or not parts[1].islower():
            return None
        try:
            stated = unhexlify(parts[1])
            data = b"".join((head, unhexlify(digest), _pack(len(path) + 1), path, b"\0"))
        except ValueError:
            return None
        if len(parts) == 6:
            signature = unhex(parts[5])
            if signature is None:
                return None
            data += _pack(len(signature)) + signature
        if self.new(data).digest() != stated:
            return None
        return tuple.__new__(Record, (pcr, _USUAL_TEMPLATES[parts[2]], stated, data, True))

    def entry(self, raw: bytes, start: int, stop: int) -> tuple[Record, int]:
        """The entry that begins here, and where it ends: at this line's end or at a later one's."""
        pcr, template, stated, fields = self._head(raw[start:stop], start)
        first = next(self._readings(template, raw[start + fields : stop]), None)
        if is_violation(stated):
            if first is None:
                raise _unreadable(template, start)
            return Record(pcr, template, stated, first, True), stop
        end = stop
        for _ in range(MAX_BREAKS + 1):
            for data in self._readings(template, raw[start + fields : end]):
                if self.new(template.hashed(data)).digest() == stated:
                    return Record(pcr, template, stated, data, True), end
            if end == len(raw) or self.effort >= MAX_EFFORT or end - start > MAX_LINE:
                break
            self.effort += end - start + _TRIAL
            end = raw.find(b"\n", end + 1)
            end = len(raw) if end < 0 else end
        if first is None:
            raise _unreadable(template, start)
        return Record(pcr, template, stated, first, False), stop

    def _head(self, line: bytes, at: int) -> tuple[int, Template, bytes, int]:
        """Register, template, template digest, and where in the line the fields begin."""
        parts = line[1:].split(b" ", 3)
        if len(parts) < 4:
            raise StructureError("bad_line", f"The line at byte {at} is no entry: {line[:60]!a}.")
        text = line[:1] + parts[0]
        pcr = _REGISTERS.get(text)
        if pcr is None:
            raise StructureError(
                "bad_register", f"The line at byte {at} begins with no register: {text[:20]!a}."
            )
        stated = unhex(parts[1])
        if stated is None or len(stated) != self.size:
            raise StructureError("bad_digest", f"The line at byte {at} has no digest of {self.size} bytes.")
        return pcr, self._template(parts[2]), stated, len(line) - len(parts[3])

    def _template(self, name: bytes) -> Template:
        template = self.templates.get(name)
        if template is None:
            template = self.templates[name] = template_of(name)
        return template

    def _readings(self, template: Template, text: bytes) -> Iterator[bytes]:
        """The data of each way to part this text into fields: the blanks of a name, and the empty fields at
        its end whose blanks were removed, leave more than one.
        """
        if len(text) > MAX_LINE:
            raise StructureError("oversized", f"An entry has {len(text)} characters; at most {MAX_LINE}.")
        fields = template.fields
        name = next((place for place, field in enumerate(fields) if field.is_text), len(fields) - 1)
        before = text.split(b" ", name)
        after = len(fields) - name - 1
        for missing in range(after + 1):
            parts = before[:-1] + before[-1].rsplit(b" ", after - missing) + [b""] * missing
            if len(parts) != len(fields):
                continue
            values = [field.parse(part) for field, part in zip(fields, parts, strict=True)]
            known = [value for value in values if value is not None]
            if len(known) == len(values) and template.can_hold(known):
                yield template.join(known)


def _unreadable(template: Template, at: int) -> StructureError:
    return StructureError(
        "bad_field",
        f"The line at byte {at} has not the fields of {template.name}; "
        "send the binary list if a path has line breaks.",
    )
