"""Which TPM is this?"""

from dataclasses import dataclass

from tpm.device.connection import Connection

# TPM_PT (Part 2, 6.13).
_MANUFACTURER, _VENDOR_STRINGS, _FIRMWARE, _PERMANENT = 0x105, range(0x106, 0x10A), (0x10B, 0x10C), 0x200
_IN_LOCKOUT = 1 << 9


@dataclass(frozen=True, slots=True)
class Properties:
    """What the TPM says of itself, unsigned: for display and diagnosis only.

    `manufacturer` is the four-letter id without padding ("IFX"); `firmware_version` has 64 bits, as in a
    quote.
    """

    manufacturer: str
    vendor: str
    firmware_version: int
    in_lockout: bool


def read_properties(tpm: Connection) -> Properties:
    """TPM_PT_MANUFACTURER, the vendor strings, both firmware words, TPMA_PERMANENT.inLockout."""
    fixed = tpm.properties(_MANUFACTURER, 8)
    permanent = tpm.properties(_PERMANENT, 1).get(_PERMANENT, 0)
    high, low = (fixed.get(word, 0) for word in _FIRMWARE)
    return Properties(
        _text(fixed.get(_MANUFACTURER, 0)),
        "".join(_text(fixed.get(word, 0)) for word in _VENDOR_STRINGS),
        high << 32 | low,
        bool(permanent & _IN_LOCKOUT),
    )


def _text(word: int) -> str:
    letters = word.to_bytes(4).rstrip(b"\0 ").decode("ascii", errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in letters)
