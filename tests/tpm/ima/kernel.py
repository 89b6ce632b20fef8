"""A kernel with IMA, in a few lines: it measures, keeps its list, and extends register 10."""

import hashlib
from dataclasses import dataclass, field

from tpm.ima.ascii import write_ascii
from tpm.ima.binary import write_binary
from tpm.ima.entry import Record
from tpm.ima.template import TEMPLATES, Template, template_of
from tpm.structures.algorithms import SHA1, SHA256, Hash, hash_by_name
from tpm.verify.pcrs import VerifiedPcrs

FORMS = {"binary": write_binary, "ascii": write_ascii}
BOOT = {register: bytes([register]) * 32 for register in range(10)}
"""What firmware and boot loader left in registers 0 to 9."""

PLAIN_IMA = "ima-ng"


def digest_field(content: bytes, algorithm: str = "sha256") -> bytes:
    return algorithm.encode() + b":\0" + hashlib.new(algorithm, content).digest()


def record(template: Template | str, *values: bytes, pcr: int = 10, logged: Hash = SHA1) -> Record:
    """An entry of these field values, names with their NUL."""
    known = template_of(template.encode()) if isinstance(template, str) else template
    data = known.join(values)
    return Record(pcr, known, logged.digest(known.hashed(data)), data, True)


@dataclass
class Kernel:
    """`padded`: as kernels before 5.8 extend. Each method is one measurement."""

    bank: Hash = SHA256
    padded: bool = False
    boot: dict[int, bytes] = field(default_factory=lambda: dict(BOOT))
    records: list[Record] = field(default_factory=list)
    value: bytes = b""

    @classmethod
    def booted(cls, *, padded: bool = False) -> "Kernel":
        """With the boot_aggregate of its registers."""
        kernel = cls(padded=padded)
        kernel.aggregate()
        return kernel

    def aggregate(self, value: bytes | None = None, *, algorithm: str = "sha256") -> "Kernel":
        registers = range(8 if algorithm == "sha1" else 10)
        made = hash_by_name(algorithm).digest(b"".join(self.boot[register] for register in registers))
        head = algorithm.encode() + b":\0"
        return self.add(record("ima-ng", head + (made if value is None else value), b"boot_aggregate\0"))

    def run(self, path: bytes, content: bytes | None = None) -> "Kernel":
        return self.add(record("ima-ng", digest_field(path if content is None else content), path + b"\0"))

    def signed(self, path: bytes, signature: bytes, content: bytes | None = None) -> "Kernel":
        digest = digest_field(path if content is None else content)
        return self.add(record("ima-sig", digest, path + b"\0", signature))

    def buffer(self, name: bytes, content: bytes) -> "Kernel":
        return self.add(record("ima-buf", digest_field(content), name + b"\0", content))

    def violate(self, path: bytes) -> "Kernel":
        data = TEMPLATES["ima-ng"].join((b"sha1:\0" + bytes(20), path + b"\0"))
        return self.add(Record(10, TEMPLATES["ima-ng"], bytes(20), data, True))

    def add(self, entry: Record) -> "Kernel":
        self.records.append(entry)
        if entry.pcr != 10:
            return self
        if not entry.logged.strip(b"\0"):
            extended = b"\xff" * (20 if self.padded else self.bank.size)
        else:
            made_with = SHA1 if self.padded else self.bank
            extended = made_with.digest(entry.template.hashed(entry.data))
        held = self.value or bytes(self.bank.size)
        self.value = self.bank.digest(held + extended.ljust(self.bank.size, b"\0"))
        return self

    def raw(self, form: str = "binary", *, first: int = 0) -> bytes:
        return b"".join(map(FORMS[form], self.records[first:]))

    @property
    def quoted(self) -> VerifiedPcrs:
        """All of registers 0 to 10, as a quote would have proven them."""
        return VerifiedPcrs(self.bank.name, {**self.boot, 10: self.value or bytes(self.bank.size)})
