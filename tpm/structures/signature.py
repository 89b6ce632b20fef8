"""Which signature is this, and over which hash?"""

import struct
from dataclasses import dataclass

from tpm.errors import StructureError
from tpm.structures.algorithms import HASHES, Hash, TpmAlg, hash_by_id
from tpm.structures.reader import oversized, trailing, truncated

RSA_LIMIT = 512
"""Bytes of an RSA-4096 signature, the largest that TPMs make."""
ECC_LIMIT = 66
"""Bytes of a number modulo the order of P-521."""

_HEAD = struct.Struct(">HHH")
_SIZE = struct.Struct(">H")
_WHAT = "signature"
_RSA_SCHEMES = {int(TpmAlg.RSASSA): "rsassa", int(TpmAlg.RSAPSS): "rsapss"}


@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE (TPM 2.0 Part 2, 11.3.4). What it says of scheme and hash is the sender's word.

    `value` holds an RSA signature and is empty for ECDSA, whose two numbers are `r` and `s`; their range is
    not checked.
    """

    raw: bytes
    scheme: str
    hash: Hash
    value: bytes = b""
    r: int = 0
    s: int = 0


def parse_signature(raw: bytes) -> Signature:
    """RSASSA, RSAPSS or ECDSA; StructureError "unknown_signature" for HMAC, ECDAA, SM2, Schnorr and what is
    none.
    """
    try:
        algorithm, hash_id, size = _HEAD.unpack_from(raw, 0)
    except struct.error:
        raise _short(raw) from None
    scheme = _RSA_SCHEMES.get(algorithm)
    if scheme is None and algorithm != TpmAlg.ECDSA:
        raise StructureError(
            "unknown_signature", f"Signature 0x{algorithm:04x} is not RSASSA, RSAPSS or ECDSA."
        )
    hash = HASHES.get(hash_id) or hash_by_id(hash_id)
    if scheme is None:
        return _parse_ecdsa(raw, hash, size)
    if size > RSA_LIMIT:
        raise oversized(_WHAT, size, RSA_LIMIT)
    _check_end(raw, 6 + size)
    return Signature(raw, scheme, hash, raw[6:])


def _parse_ecdsa(raw: bytes, hash: Hash, size: int) -> Signature:
    if size > ECC_LIMIT:
        raise oversized(_WHAT, size, ECC_LIMIT)
    middle = 6 + size
    try:
        (last,) = _SIZE.unpack_from(raw, middle)
    except struct.error:
        raise truncated(_WHAT, middle + 2, len(raw)) from None
    if last > ECC_LIMIT:
        raise oversized(_WHAT, last, ECC_LIMIT)
    _check_end(raw, middle + 2 + last)
    r, s = int.from_bytes(raw[6:middle], "big"), int.from_bytes(raw[middle + 2 :], "big")
    return Signature(raw, "ecdsa", hash, b"", r, s)


def _check_end(raw: bytes, end: int) -> None:
    if len(raw) < end:
        raise truncated(_WHAT, end, len(raw))
    if len(raw) > end:
        raise trailing(_WHAT, end, len(raw))


def _short(raw: bytes) -> StructureError:
    """A signature without even a head; HMAC and NULL signatures are shorter and deserve their own word."""
    if len(raw) >= 2:
        algorithm = int.from_bytes(raw[:2], "big")
        if algorithm not in (*_RSA_SCHEMES, TpmAlg.ECDSA):
            return StructureError(
                "unknown_signature", f"Signature 0x{algorithm:04x} is not RSASSA, RSAPSS or ECDSA."
            )
    return truncated(_WHAT, 6, len(raw))
