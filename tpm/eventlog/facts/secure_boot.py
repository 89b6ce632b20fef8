"""Was Secure Boot on, by which keys, and who vouched for what ran?

Platform Firmware Profile 1.06, 3.3.4.8: the firmware measures SecureBoot, PK, KEK, db and dbx into PCR 7,
then a separator; what vouches for an image follows when the image is loaded. Whoever runs after the
separator can extend PCR 7 too, so that a variable counts only before it; and the separator is known by its
digest, for types can be changed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tpm.errors import StructureError
from tpm.eventlog.efi.guid import (
    DBX_SVN_BOOT_MANAGER,
    DBX_SVN_OWNER,
    GLOBAL_VARIABLE,
    IMAGE_SECURITY_DATABASE,
)
from tpm.eventlog.efi.signature_list import SignatureList, parse_signature_lists
from tpm.eventlog.efi.variable import Variable, parse_variable
from tpm.eventlog.events import Event, EventType
from tpm.eventlog.facts.authority import Authority, ShimState, read_authority
from tpm.eventlog.facts.measured import Measured, finding, separator_digests
from tpm.eventlog.findings import Finding

_DATABASES = {
    "PK": GLOBAL_VARIABLE,
    "KEK": GLOBAL_VARIABLE,
    "db": IMAGE_SECURITY_DATABASE,
    "dbx": IMAGE_SECURITY_DATABASE,
    "dbt": IMAGE_SECURITY_DATABASE,
    "dbr": IMAGE_SECURITY_DATABASE,
}
_FLAGS = ("SecureBoot", "SetupMode", "AuditMode", "DeployedMode")
_ACTIONS = (EventType.EV_ACTION, EventType.EV_EFI_ACTION)
_SEPARATOR = int(EventType.EV_SEPARATOR)
_CONFIG = int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)
_AUTHORITY = int(EventType.EV_EFI_VARIABLE_AUTHORITY)


@dataclass(frozen=True, slots=True)
class Database:
    """One of Secure Boot's signature databases as it was when the machine started."""

    name: str
    lists: tuple[SignatureList, ...]
    content: bytes
    """The variable as it was."""
    event: int

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the content: which edition of the database this is."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """The X.509 certificates in it, DER."""
        return tuple(one.data for part in self.lists if part.kind == "x509" for one in part.entries())

    @property
    def hashes(self) -> frozenset[bytes]:
        """The SHA-256 image hashes in it."""
        return frozenset(one.data for part in self.lists if part.kind == "sha256" for one in part.entries())

    @property
    def entries(self) -> int:
        return sum(part.length for part in self.lists)

    @property
    def revision(self) -> str | None:
        """The version number of the boot manager below which Microsoft's dbx revokes, as "7.0"; None
        without one.

        Such an entry has Microsoft's owner GUID and, instead of a hash: 1, a GUID, and two 16-bit numbers.
        """
        versions = [
            (int.from_bytes(one.data[19:21], "little"), int.from_bytes(one.data[17:19], "little"))
            for part in self.lists
            if part.kind == "sha256"
            for one in part.entries()
            if one.owner == DBX_SVN_OWNER and one.data[:17] == b"\x01" + DBX_SVN_BOOT_MANAGER
        ]
        return "{}.{}".format(*max(versions)) if versions else None


@dataclass(frozen=True, slots=True)
class Action:
    """A sentence that the firmware measured, such as "DMA Protection Disabled"."""

    text: str
    register: int
    event: int


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """What PCR 7 tells."""

    enabled: bool | None
    """None: the variable is not among the facts, or is there with two values."""
    events: tuple[int, ...]
    """What `enabled` rests on."""
    modes: Mapping[str, bool]
    """SetupMode, AuditMode, DeployedMode, as far as the firmware measures them."""
    databases: Mapping[str, Database]
    authorities: tuple[Authority, ...]
    shim_state: tuple[ShimState, ...]
    actions: tuple[Action, ...]
    separator: int | None
    unexplained: tuple[int, ...]
    """Events of the register that are none of these. A policy about authorities can hold only if there is
    none: a changed type hides what an event is. In a confidential machine's log other registers' events are
    among them.
    """


def read_secure_boot(log: Measured) -> tuple[SecureBoot, tuple[Finding, ...]]:
    """The facts of PCR 7 and what is odd about them."""
    reading = _Reading(log)
    for event in log.at(7):
        reading.take(event)
    return reading.result(), tuple(reading.findings)


class _Reading:
    """One walk through the register."""

    def __init__(self, log: Measured) -> None:
        self.log = log
        self.closing = separator_digests(log.bank)
        self.separator: int | None = None
        self.flags: dict[str, set[bool | None]] = {}
        self.flag_events: dict[str, list[int]] = {}
        self.databases: dict[str, Database] = {}
        self.repeated: set[str] = set()
        self.authorities: list[Authority] = []
        self.shim_state: list[ShimState] = []
        self.actions: list[Action] = []
        self.unexplained: list[int] = []
        self.findings: list[Finding] = []

    def take(self, event: Event) -> None:
        kind = event.type
        closes = event.digests[self.log.bank] in self.closing
        if closes or kind == _SEPARATOR:
            if self.separator is None:
                self.separator = event.number
            if not closes:
                self.unexplained.append(event.number)
        elif kind == _CONFIG and event.number in self.log.whole:
            self._variable(event)
        elif kind == _AUTHORITY:
            self._authority(event)
        elif kind in _ACTIONS and self.log.is_text(event):
            self.actions.append(Action(event.data.decode(), event.register, event.number))
        elif not self.log.is_os_separator(event):
            self.unexplained.append(event.number)

    def _variable(self, event: Event) -> None:
        try:
            variable = parse_variable(event.data)
        except StructureError as error:
            self.findings.append(finding(error.reason, event, error.detail))
            self.unexplained.append(event.number)
            return
        known = _place_of(variable)
        if self.separator is not None:
            detail = "A variable was measured after the separator; it does not count."
            self.findings.append(finding("variable_after_separator", event, detail))
            self.unexplained.append(event.number)
        elif known is None:
            self._foreign(event, variable)
        elif known == "flag":
            value = {b"": False, b"\0": False, b"\x01": True}.get(variable.data)
            self.flags.setdefault(variable.name, set()).add(value)
            self.flag_events.setdefault(variable.name, []).append(event.number)
        else:
            self._database(event, variable)

    def _foreign(self, event: Event, variable: Variable) -> None:
        """Vendors measure variables of their own, which say nothing; one that bears a known name tries to."""
        if variable.name in (*_FLAGS, *_DATABASES):
            detail = f"A variable called {variable.name} is not the firmware's: its GUID is another."
            self.findings.append(finding("variable_foreign", event, detail))
            self.unexplained.append(event.number)

    def _database(self, event: Event, variable: Variable) -> None:
        try:
            lists = parse_signature_lists(variable.data)
        except StructureError as error:
            self.findings.append(finding(error.reason, event, f"{variable.name}: {error.detail}"))
            self.unexplained.append(event.number)
            return
        known = self.databases.setdefault(
            variable.name, Database(variable.name, lists, variable.data, event.number)
        )
        if known.content != variable.data:
            self.repeated.add(variable.name)

    def _authority(self, event: Event) -> None:
        found = read_authority(self.log, event, before_separator=self.separator is None)
        match found:
            case Authority():
                self.authorities.append(found)
            case ShimState():
                self.shim_state.append(found)
            case _:
                self.unexplained.append(event.number)

    def result(self) -> SecureBoot:
        for name, values in self.flags.items():
            if len(values) > 1:
                self.repeated.add(name)
        for name in sorted(self.repeated):
            detail = f"{name} was measured with two values; neither counts."
            self.findings.append(Finding("variable_repeated", detail, self._register()))
            self.databases.pop(name, None)
        flags = {name: next(iter(values)) for name, values in self.flags.items() if len(values) == 1}
        return SecureBoot(
            flags.get("SecureBoot"),
            tuple(self.flag_events.get("SecureBoot", ())),
            MappingProxyType(
                {name: on for name, on in flags.items() if name != "SecureBoot" and on is not None}
            ),
            MappingProxyType(self.databases),
            tuple(self.authorities),
            tuple(self.shim_state),
            tuple(self.actions),
            self.separator,
            tuple(self.unexplained),
        )

    def _register(self) -> int:
        return self.log.at(7)[0].register


def _place_of(variable: Variable) -> str | None:
    """ "flag" or "database" for a variable of Secure Boot: exact name, right GUID."""
    if variable.name in _FLAGS and variable.namespace == GLOBAL_VARIABLE:
        return "flag"
    if _DATABASES.get(variable.name) == variable.namespace:
        return "database"
    return None
