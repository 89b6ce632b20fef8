"""What does a TPM state: a quote of its registers, or that it holds a key?"""

import struct
from dataclasses import dataclass

from tpm.errors import EvidenceError, StructureError
from tpm.structures.algorithms import GENERATED_VALUE, TpmSt
from tpm.structures.pcrs import PcrSelection, read_selection
from tpm.structures.reader import oversized, trailing, truncated

NAME_LIMIT = 66
"""The longest Name: two bytes of algorithm and a SHA-512."""
DATA_LIMIT = 66
"""The longest qualifying data (TPM2B_DATA holds a TPMT_HA)."""
DIGEST_LIMIT = 64

_HEAD = struct.Struct(">IHH")
_SIZE = struct.Struct(">H")
_CLOCK = struct.Struct(">QIIBQ")
_WHAT = "attestation structure"
_TYPES: dict[int, str] = {
    TpmSt.ATTEST_NV: "an NV certification",
    TpmSt.ATTEST_COMMAND_AUDIT: "a command audit",
    TpmSt.ATTEST_SESSION_AUDIT: "a session audit",
    TpmSt.ATTEST_CERTIFY: "a certification of a key",
    TpmSt.ATTEST_QUOTE: "a quote",
    TpmSt.ATTEST_TIME: "a time attestation",
    TpmSt.ATTEST_CREATION: "a certification of a creation",
    TpmSt.ATTEST_NV_DIGEST: "an NV digest certification",
}


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO: `clock` in milliseconds of powered time; `safe` is false after an unorderly shutdown.

    Reset and restart count are obfuscated when the signing key is not in the endorsement or platform
    hierarchy: they can then be compared with those of the same key only.
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST of a quote (TPM 2.0 Part 2, 10.12.8): what a TPM says about its registers. Nothing is
    verified yet.
    """

    raw: bytes
    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    selection: PcrSelection
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Certification:
    """TPMS_ATTEST of TPM2_Certify: the TPM holds the object `name`. Nothing is verified yet."""

    raw: bytes
    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    name: bytes
    qualified_name: bytes


def parse_quote(raw: bytes) -> Quote:
    """A quote and nothing else. Flat, because it stands in every round's way.

    EvidenceError "not_tpm_generated" for another magic number, "wrong_type" for another kind of attestation;
    StructureError for what is none.
    """
    try:
        signer, extra, clock, firmware, offset = _read_head(raw, TpmSt.ATTEST_QUOTE)
        selection, offset = read_selection(raw, offset, _WHAT)
        (size,) = _SIZE.unpack_from(raw, offset)
    except struct.error:
        raise truncated(_WHAT, len(raw) + 1, len(raw)) from None
    if size > DIGEST_LIMIT:
        raise oversized(_WHAT, size, DIGEST_LIMIT)
    offset += 2
    _check_end(raw, offset + size)
    return Quote(raw, signer, extra, clock, firmware, selection, raw[offset:])


def parse_certification(raw: bytes) -> Certification:
    """A TPM2_Certify statement and nothing else; errors as those of `parse_quote`."""
    try:
        signer, extra, clock, firmware, offset = _read_head(raw, TpmSt.ATTEST_CERTIFY)
        name, offset = _read_sized(raw, offset, NAME_LIMIT)
        qualified_name, offset = _read_sized(raw, offset, NAME_LIMIT)
    except struct.error:
        raise truncated(_WHAT, len(raw) + 1, len(raw)) from None
    _check_end(raw, offset)
    return Certification(raw, signer, extra, clock, firmware, name, qualified_name)


def _read_head(raw: bytes, expected: TpmSt) -> tuple[bytes, bytes, ClockInfo, int, int]:
    """What all attestations share: signer, qualifying data, clock, firmware version; and where the rest
    begins.
    """
    magic, kind, size = _HEAD.unpack_from(raw, 0)
    # The magic number comes first: before it nothing says that a TPM wrote these bytes (CVE-2024-29038).
    if magic != GENERATED_VALUE:
        raise EvidenceError("not_tpm_generated", f"The attestation begins 0x{magic:08x}, not 0xff544347.")
    if kind != expected:
        raise _wrong_type(kind, expected)
    if size > NAME_LIMIT:
        raise oversized(_WHAT, size, NAME_LIMIT)
    offset = 8 + size
    signer = raw[8:offset]
    (size,) = _SIZE.unpack_from(raw, offset)
    if size > DATA_LIMIT:
        raise oversized(_WHAT, size, DATA_LIMIT)
    offset += 2
    extra = raw[offset : offset + size]
    offset += size
    clock, resets, restarts, safe, firmware = _CLOCK.unpack_from(raw, offset)
    if safe > 1:
        raise StructureError("bad_boolean", f"The clock's safe flag is {safe}; 0 and 1 are possible.")
    return signer, extra, ClockInfo(clock, resets, restarts, safe == 1), firmware, offset + 25


def _read_sized(raw: bytes, offset: int, limit: int) -> tuple[bytes, int]:
    (size,) = _SIZE.unpack_from(raw, offset)
    if size > limit:
        raise oversized(_WHAT, size, limit)
    # A field that the bytes cut short is found by whoever reads on behind its end.
    end = offset + 2 + size
    return raw[offset + 2 : end], end


def _check_end(raw: bytes, end: int) -> None:
    if len(raw) < end:
        raise truncated(_WHAT, end, len(raw))
    if len(raw) > end:
        raise trailing(_WHAT, end, len(raw))


def _wrong_type(kind: int, expected: TpmSt) -> EvidenceError | StructureError:
    wanted = _TYPES[expected]
    found = _TYPES.get(kind)
    if found is None:
        return StructureError(
            "unknown_type", f"Attestation type 0x{kind:04x} does not exist; {wanted} is expected."
        )
    return EvidenceError("wrong_type", f"The TPM signed {found}, not {wanted}.")
