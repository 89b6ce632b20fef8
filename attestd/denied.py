"""Which TPMs does the operator refuse, whoever vouches for them?"""

from __future__ import annotations

import re

from attestd.tables import Table

_MANUFACTURER = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,2}[\x21-\x7e]|[\x21-\x7e]|id:[0-9A-F]{8}", re.ASCII)
_FIRMWARE = re.compile(r"[0-9a-f]{16}")


def read_denied_manufacturers(table: Table) -> frozenset[str]:
    """Makers as certificates and `attestd device show` name them: "IFX", or "id:" and eight hex digits."""
    said = 'a maker is its TCG id like "IFX", or "id:" and eight hex digits'
    return frozenset(_matching(table, "denied_manufacturers", _MANUFACTURER, said))


def read_denied_firmware(table: Table) -> frozenset[int]:
    """Firmware versions as quotes state them (TPMS_ATTEST.firmwareVersion): 16 hex digits."""
    said = "a version is 16 lower-case hex digits, as a quote has it"
    return frozenset(int(version, 16) for version in _matching(table, "denied_firmware", _FIRMWARE, said))


def _matching(table: Table, key: str, pattern: re.Pattern[str], said: str) -> tuple[str, ...]:
    """The texts under this key; the refusal of one that does not match ends with what is `said`."""
    named = table.texts(key)
    for text in named:
        if pattern.fullmatch(text) is None:
            raise table.refusal(key, "config_value", f'has "{text[:40]}"; {said}')
    return named
