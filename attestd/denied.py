"""Which TPMs does the operator refuse, whoever vouches for them?"""

from __future__ import annotations

import re

from attestd.tables import Table

_MANUFACTURER = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,2}[\x21-\x7e]|[\x21-\x7e]|id:[0-9A-F]{8}", re.ASCII)
_FIRMWARE = re.compile(r"[0-9a-f]{16}")


def read_denied_manufacturers(table: Table) -> frozenset[str]:
    """Makers as certificates and `attestd device show` name them: "IFX", or "id:" and eight hex digits."""
    named = table.texts("denied_manufacturers")
    for name in named:
        if _MANUFACTURER.fullmatch(name) is None:
            raise table.refusal(
                "denied_manufacturers",
                "config_value",
                f'has "{name[:40]}"; a maker is its TCG id like "IFX", or "id:" and eight hex digits',
            )
    return frozenset(named)


def read_denied_firmware(table: Table) -> frozenset[int]:
    """Firmware versions as quotes state them (TPMS_ATTEST.firmwareVersion): 16 hex digits."""
    named = table.texts("denied_firmware")
    for version in named:
        if _FIRMWARE.fullmatch(version) is None:
            raise table.refusal(
                "denied_firmware",
                "config_value",
                f'has "{version[:40]}"; a version is 16 lower-case hex digits, as a quote has it',
            )
    return frozenset(int(version, 16) for version in named)
