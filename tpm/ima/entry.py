"""What does one entry of an IMA list say?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tpm.ima.template import Template
from tpm.structures.algorithms import HASHES, Hash

BOOT_AGGREGATE = b"boot_aggregate"

NO_DIGEST = frozenset(bytes(known.size) for known in HASHES.values())
"""What a violation has for a template digest."""


class Record(NamedTuple):
    """One entry as a list has it, before anyone asks for its fields; what replays are made of.

    `logged` is the template digest that the list states, all zero for a violation; `data` are the fields as
    the kernel serialised them, which were checked for their shape. `intact` says whether `logged` is the
    digest of them; a violation has none, so that its data is nobody's word but the sender's.
    """

    pcr: int
    template: Template
    logged: bytes
    data: bytes
    intact: bool


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The digest of a file or a buffer: `kind` is "ima" for its bytes, "verity" for the root of its fs-verity
    tree; `algorithm` is the kernel's name, empty where it has none. Written "sha256:…" or "verity:sha256:…".
    """

    kind: str
    algorithm: str
    digest: bytes

    def __str__(self) -> str:
        prefix = "" if self.kind == "ima" else f"{self.kind}:"
        return f"{prefix}{self.algorithm}:{self.digest.hex()}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry with its fields. `position` counts from zero in the boot's list.

    `path` has the exact bytes that the kernel measured (it writes "_" for each blank). Fields that the
    template lacks are None; a field without a value is empty.
    """

    position: int
    pcr: int
    template: str
    logged: bytes
    data: bytes
    fields: tuple[tuple[str, bytes], ...]
    intact: bool

    @classmethod
    def of(cls, position: int, record: Record) -> Entry:
        template = record.template
        values = template.split(record.data)
        named = tuple((field.name, value) for field, value in zip(template.fields, values, strict=True))
        return cls(position, record.pcr, template.name, record.logged, record.data, named, record.intact)

    def field(self, name: str) -> bytes | None:
        """The first field of this name."""
        for known, value in self.fields:
            if known == name:
                return value
        return None

    @property
    def violation(self) -> bool:
        """The kernel could not vouch for what was read: a file was open for writing at the same time."""
        return is_violation(self.logged)

    @property
    def path(self) -> bytes:
        """The file's path, or the name of a buffer or a keyring; empty if the template has no name."""
        value = self.field("n-ng")
        if value is None:
            value = self.field("n")
        return b"" if value is None else value[:-1]

    @property
    def file_digest(self) -> FileDigest | None:
        for name in ("d-ng", "d-ngv2", "d"):
            value = self.field(name)
            if value is not None:
                return digest_of(value, plain=name == "d")
        return None

    @property
    def signature(self) -> bytes | None:
        """The extended attribute `security.ima` of a signed file, with its header."""
        return self.field("sig")

    @property
    def buffer(self) -> bytes | None:
        """What was measured if it is no file: a key, a command line, critical data."""
        return self.field("buf")

    @property
    def modsig(self) -> bytes | None:
        """The PKCS#7 signature appended to the file."""
        return self.field("modsig")

    @property
    def is_buffer(self) -> bool:
        return self.template == "ima-buf" or bool(self.buffer)


def is_violation(logged: bytes) -> bool:
    return logged in NO_DIGEST


def digest_of(value: bytes, *, plain: bool) -> FileDigest:
    """The digest in a field's value that holds; `plain`: the bare MD5 or SHA-1 of the field "d"."""
    if plain:
        return FileDigest("ima", "sha1" if len(value) == 20 else "md5", value)
    head, _, digest = value.partition(b":\0")
    kind, separator, algorithm = head.decode("ascii").rpartition(":")
    return FileDigest(kind if separator else "ima", algorithm, digest)


def constructor(known: Hash) -> Callable[[bytes], Any]:
    """The bare hash of hashlib, for loops over each entry of a list, where a call more is a tenth of the
    whole.
    """
    found: Callable[[bytes], Any] = getattr(hashlib, known.name)
    return found
