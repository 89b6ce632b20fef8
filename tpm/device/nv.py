"""What did the maker of the TPM leave in its memory?"""

from tpm2_pytss.constants import ESYS_TR, TPMA_NV

from tpm.device.connection import Connection
from tpm.device.refusals import explained
from tpm.errors import DeviceError

_FIRST, _LAST = 0x01C00000, 0x01C0FFFF
_NV_BUFFER_MAX = 0x12C  # TPM_PT
_BUFFER = 512
_LARGEST = 16 * 1024
"""Bytes of an index that we read; a certificate or a chain is far smaller."""


def maker_indices(tpm: Connection) -> list[int]:
    """The NV indices in the range that TCG gives to the TPM's maker."""
    return tpm.handles(_FIRST, _LAST)


def read_index(tpm: Connection, index: int) -> bytes:
    """The content of an NV index that may be read without a password that we do not know. Raises
    DeviceError.
    """
    with tpm.known(index) as handle, explained(f"read index {index:#010x}"):
        public = tpm.esapi.nv_read_public(handle)[0].nvPublic
        authorization = _authorization(index, handle, int(public.attributes))
        size = min(int(public.dataSize), _LARGEST)
        step = min(tpm.properties(_NV_BUFFER_MAX, 1).get(_NV_BUFFER_MAX, _BUFFER), _BUFFER)
        content = b""
        while len(content) < size:
            length = min(step, size - len(content))
            content += bytes(tpm.esapi.nv_read(handle, length, len(content), auth_handle=authorization))
        return content


def _authorization(index: int, handle: object, attributes: int) -> object:
    """Who reads it: the index itself only where a wrong password could not count against the TPM's
    lockout.
    """
    if attributes & TPMA_NV.AUTHREAD and attributes & TPMA_NV.NO_DA:
        return handle
    if attributes & TPMA_NV.OWNERREAD:
        return ESYS_TR.OWNER
    raise DeviceError(
        "nv_unreadable", f"Index {index:#010x} can only be read with its maker's authorization."
    )


def split_certificates(content: bytes, *, limit: int) -> list[bytes]:
    """The DER certificates in what lay in NV: headers before, padding between and after, are left out."""
    found: list[bytes] = []
    offset = 0
    while len(found) < limit and offset + 4 <= len(content):
        # SEQUENCE with a two-byte length, as every certificate of 256 bytes to 64 KiB begins.
        if content[offset : offset + 2] != b"\x30\x82":
            offset += 1
            continue
        end = offset + 4 + int.from_bytes(content[offset + 2 : offset + 4])
        if end > len(content):
            offset += 1
            continue
        found.append(content[offset:end])
        offset = end
    return found
