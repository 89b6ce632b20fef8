"""Which TPM is this?"""

from dataclasses import dataclass

from tpm.device.connection import Connection

# TPM_PT (Part 2, 6.13).
_FAMILY, _MANUFACTURER, _VENDOR_STRINGS, _FIRMWARE = 0x100, 0x105, range(0x106, 0x10A), (0x10B, 0x10C)
_PERMANENT, _WRONG, _WRONG_LIMIT, _WRONG_INTERVAL = 0x200, 0x20E, 0x20F, 0x210
_IN_LOCKOUT = 1 << 9


@dataclass(frozen=True, slots=True)
class Properties:
    """What the TPM says of itself, unsigned: for display and diagnosis only.

    `manufacturer` is the four-letter id without padding ("IFX"); `firmware_version` has 64 bits, as in a
    quote. It locks itself at `wrong_limit` wrong passwords and forgets one every `wrong_interval` seconds.
    """

    family: str
    manufacturer: str
    vendor: str
    firmware_version: int
    in_lockout: bool
    wrong_passwords: int
    wrong_limit: int
    wrong_interval: int


def read_properties(tpm: Connection) -> Properties:
    """TPM_PT_FAMILY_INDICATOR, the maker, the vendor strings, both firmware words, TPMA_PERMANENT.inLockout
    and the counter that leads there."""
    fixed = tpm.properties(_FAMILY, 13)
    variable = tpm.properties(_PERMANENT, 16)
    high, low = (fixed.get(word, 0) for word in _FIRMWARE)
    return Properties(
        _text(fixed.get(_FAMILY, 0)),
        _text(fixed.get(_MANUFACTURER, 0)),
        "".join(_text(fixed.get(word, 0)) for word in _VENDOR_STRINGS),
        high << 32 | low,
        bool(variable.get(_PERMANENT, 0) & _IN_LOCKOUT),
        variable.get(_WRONG, 0),
        variable.get(_WRONG_LIMIT, 0),
        variable.get(_WRONG_INTERVAL, 0),
    )


def _text(word: int) -> str:
    letters = word.to_bytes(4).rstrip(b"\0 ").decode("ascii", errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in letters)
