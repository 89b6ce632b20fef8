"""Which certificates and hashes does a signature database hold?

EFI_SIGNATURE_LIST (UEFI 2.10, 32.4.1): type GUID, size of the list, size of its header, size of one
signature; then signatures of that size, each an owner GUID and data.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tpm.errors import StructureError
from tpm.eventlog.efi.guid import (
    CERT_RSA2048,
    CERT_SHA1,
    CERT_SHA256,
    CERT_SHA384,
    CERT_SHA512,
    CERT_X509,
    CERT_X509_SHA256,
)

_HEADER = struct.Struct("<16sIII")
_OWNER_SIZE = 16
_DATA_SIZES = {
    CERT_SHA1: 20,
    CERT_SHA256: 32,
    CERT_SHA384: 48,
    CERT_SHA512: 64,
    CERT_RSA2048: 256,
    CERT_X509_SHA256: 48,
}
_KINDS = {
    CERT_X509: "x509",
    CERT_SHA1: "sha1",
    CERT_SHA256: "sha256",
    CERT_SHA384: "sha384",
    CERT_SHA512: "sha512",
    CERT_RSA2048: "rsa2048",
    CERT_X509_SHA256: "x509-sha256",
}
_LISTS_LIMIT = 4096
_OLDEST_CERTIFICATE = 4


class Signature(NamedTuple):
    """One entry: who put it there, and a certificate (DER), a hash or a key."""

    kind: str
    """"x509", "sha256"…; the type's GUID for one that we do not know."""
    owner: bytes
    data: bytes


class SignatureList(NamedTuple):
    """One list, its lengths checked, so that cutting it into entries cannot fail."""

    kind: str
    size: int
    """Bytes of one entry, its owner included."""
    body: bytes

    @property
    def length(self) -> int:
        """How many entries there are."""
        return len(self.body) // self.size

    def entries(self) -> Iterator[Signature]:
        for start in range(0, len(self.body), self.size):
            data = start + _OWNER_SIZE
            yield Signature(self.kind, self.body[start:data], self.body[data : start + self.size])


def parse_signature_lists(raw: bytes) -> tuple[SignatureList, ...]:
    """All lists of a database, which may be empty. StructureError "signature_list" if one of them is not
    sound.

    A header of its own no standard type has: what hides hashes in one is refused, not skipped.
    """
    lists: list[SignatureList] = []
    offset = 0
    while offset < len(raw):
        if len(lists) >= _LISTS_LIMIT:
            raise _wrong(f"there are more than {_LISTS_LIMIT} lists")
        if offset + _HEADER.size > len(raw):
            raise _wrong("the last one is cut off")
        kind, total, header, size = _HEADER.unpack_from(raw, offset)
        if header != 0:
            raise _wrong(f"one has a header of {header} bytes")
        if not _HEADER.size <= total <= len(raw) - offset:
            raise _wrong(f"one claims {total} bytes of {len(raw) - offset}")
        body = raw[offset + _HEADER.size : offset + total]
        _check_entries(kind, size, len(body))
        lists.append(SignatureList(_KINDS.get(kind) or kind.hex(), size, body))
        offset += total
    return tuple(lists)


def _check_entries(kind: bytes, size: int, body: int) -> None:
    expected = _DATA_SIZES.get(kind)
    if expected is None and size < _OWNER_SIZE + _OLDEST_CERTIFICATE:
        raise _wrong(f"one has signatures of {size} bytes")
    if expected is not None and size != _OWNER_SIZE + expected:
        raise _wrong(f"one has signatures of {size} bytes, not {_OWNER_SIZE + expected}")
    if body % size:
        raise _wrong(f"{body} bytes are not a whole number of signatures of {size}")


def _wrong(why: str) -> StructureError:
    return StructureError("signature_list", f"A signature database cannot be read: {why}.")
