"""Who vouched for an image?

EV_EFI_VARIABLE_AUTHORITY: the firmware measures the entry of db that let an image run; shim measures its
own certificate, an entry of MokList, or db's, and beside them its state (SbatLevel, MokListTrusted) in the
same form.
"""

from dataclasses import dataclass

from tpm.errors import StructureError
from tpm.eventlog.efi.guid import IMAGE_SECURITY_DATABASE, SHIM_LOCK
from tpm.eventlog.efi.variable import Variable, parse_variable
from tpm.eventlog.events import Event
from tpm.eventlog.facts.measured import Measured

_OWNER_SIZE = 16
_SHA256_SIZE = 32
_SHIM_TRAILING = 7
_STATES = ("SbatLevel", "MokListTrusted", "MokListXRT", "SbatLevelRT", "MokSBState", "MokDBState")


@dataclass(frozen=True, slots=True)
class Authority:
    """What let an image run: a certificate, or the image's own hash in a database."""

    source: str
    """The variable that holds it: "db", or shim's "Shim", "MokList", "vendor_db"."""
    certificate: bytes | None
    """DER."""
    hash: bytes | None
    owner: bytes | None
    """GUID of who put it into the database, 16 wire bytes; shim leaves it out."""
    by_shim: bool
    before_separator: bool
    """It let a driver of the firmware's phase run, such as an option ROM."""
    event: int


@dataclass(frozen=True, slots=True)
class ShimState:
    """A variable by which shim decides, such as SbatLevel: below which generation it refuses programs."""

    name: str
    data: bytes
    event: int

    @property
    def text(self) -> str:
        return self.data.decode("ascii", "replace").strip("\0\n")


def read_authority(log: Measured, event: Event, *, before_separator: bool) -> Authority | ShimState | None:
    """What the event says, if its data is what was measured; None otherwise."""
    variable = _variable(log, event)
    if variable is None or variable.namespace not in (IMAGE_SECURITY_DATABASE, SHIM_LOCK):
        return None
    by_shim = variable.namespace == SHIM_LOCK
    if by_shim and variable.name in _STATES:
        return ShimState(variable.name, variable.data, event.number)
    owner, content = _split(variable.data)
    if _is_certificate(content):
        return Authority(variable.name, content, None, owner, by_shim, before_separator, event.number)
    if len(content) == _SHA256_SIZE:
        return Authority(variable.name, None, content, owner, by_shim, before_separator, event.number)
    # Whatever else shim calls an authority is none that can be judged: a hash that is no SHA-256, for one.
    return None


def _variable(log: Measured, event: Event) -> Variable | None:
    """The variable that was measured. Older shims count their structure too long and hash all of that but
    one byte.
    """
    try:
        if event.number in log.whole:
            return parse_variable(event.data, trailing=_SHIM_TRAILING)
        short = event.data[:-1]
        return parse_variable(short, trailing=_SHIM_TRAILING) if log.binds(event, short) else None
    except StructureError:
        return None


def _split(data: bytes) -> tuple[bytes | None, bytes]:
    """Owner and content of an EFI_SIGNATURE_DATA; shim measures the content alone."""
    if _is_certificate(data) or len(data) == _SHA256_SIZE:
        return None, data
    return data[:_OWNER_SIZE], data[_OWNER_SIZE:]


def _is_certificate(data: bytes) -> bool:
    """Is it one DER sequence, as long as it says? A certificate can have less than 256 bytes."""
    sizes = {b"\x30\x81": 1, b"\x30\x82": 2, b"\x30\x83": 3}.get(data[:2], 0)
    return sizes > 0 and 2 + sizes + int.from_bytes(data[2 : 2 + sizes], "big") == len(data)
