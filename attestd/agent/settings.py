"""What did the operator of this machine set: which service, which TPM, and who may have which identity?

One TOML file, checked whole before anything is done with it. It belongs to the machine's operator alone;
nothing in it is ever written or chosen by the service.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from attestd.addresses import url_fault
from attestd.agent.formats import SUFFIXES
from attestd.tables import Table
from tpm.errors import PolicyError

DEFAULT_FILE = Path("/etc/attestd/agent.toml")
DEFAULT_STATE = Path("/var/lib/attestd-agent")
DEFAULT_SOCKET = Path("/run/attestd-agent/workload.sock")
DEFAULT_TPM = "device:/dev/tpmrm0"

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Of agents and sealed keys in the protocol, and so of the files that are named after them."""
MAX_CREDENTIALS = 16
"""Of all workloads together, as of one attestation: all are renewed in one."""

_CALLERS = ("user", "group", "unit", "path")
_PRIVILEGED = ("user", "group", "unit")
"""What a process cannot give to itself."""
_KNOWN = ("server", "ca", "root_sha256", "tpm", "state", "socket", "reactivate", "workload")
_OF_WORKLOAD = ("agent", "formats", "key", "audiences", "hint", "files", "on_renewal", "seals", *_CALLERS)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Callers:
    """Which local programs: a condition that names nothing is none; of the others each must hold, by any of
    its values. Users and groups are names or numbers as text, units are systemd's, paths absolute."""

    user: frozenset[str]
    group: frozenset[str]
    unit: frozenset[str]
    path: frozenset[str]


@dataclass(frozen=True, slots=True)
class Workload:
    """One agent of this machine: what it is given, who may ask for it, and where it is also written.

    `key` is "software" or "tpm". `files` is an absolute directory, or None; `on_renewal` is a command with
    its arguments, or empty.
    """

    agent: str
    formats: tuple[str, ...]
    key: str
    audiences: tuple[str, ...]
    hint: str
    callers: Callers
    files: Path | None
    on_renewal: tuple[str, ...]
    seals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """`server` may be missing on a machine that has joined. Paths are absolute. `root_sha256` is the
    fingerprint of a certificate (SHA-256 of its DER, lower-case hex) instead of the file `ca`."""

    server: str | None = None
    ca: Path | None = None
    root_sha256: str | None = None
    tpm: str = DEFAULT_TPM
    state: Path = DEFAULT_STATE
    socket: Path = DEFAULT_SOCKET
    reactivate: bool = True
    workloads: tuple[Workload, ...] = ()


def load_settings(path: Path) -> Settings:
    """The file's settings; PolicyError "config_…" with one line that says what to correct. OSError when it
    cannot be read."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PolicyError("config_syntax", f"{path}: {error}; correct the TOML") from None
    return read_settings(Table(values, source=str(path), known=_KNOWN), relative_to=path.parent.absolute())


def read_settings(table: Table, *, relative_to: Path) -> Settings:
    """The settings of a table; errors as for `load_settings`."""
    server = table.optional_text("server")
    if server is not None and (fault := url_fault(server)) is not None:
        raise table.refusal("server", "config_value", f"is {server}: {fault}")
    root = table.optional_text("root_sha256")
    if root is not None and _FINGERPRINT.fullmatch(root) is None:
        raise table.refusal("root_sha256", "config_value", "is no SHA-256: 64 lower-case hex digits")
    ca = table.optional_text("ca")
    if root is not None and ca is not None:
        raise table.refusal("root_sha256", "config_value", "and ca both name whom to trust; keep one")
    workloads = tuple(_workload(each, relative_to) for each in table.tables("workload", _OF_WORKLOAD))
    _check_together(table, workloads)
    return Settings(
        server,
        None if ca is None else relative_to / ca,
        root,
        table.text("tpm", DEFAULT_TPM),
        relative_to / table.text("state", str(DEFAULT_STATE)),
        relative_to / table.text("socket", str(DEFAULT_SOCKET)),
        table.flag("reactivate", True),
        workloads,
    )


def _workload(table: Table, relative_to: Path) -> Workload:
    key = table.text("key", "software")
    if key not in ("software", "tpm"):
        raise table.refusal("key", "config_value", f'is "{key}"; it must be "software" or "tpm"')
    formats = table.texts("formats") if table.has("formats") else ("x509-svid",)
    _check_among(table, "formats", formats, SUFFIXES)
    audiences, files = table.texts("audiences"), table.optional_text("files")
    if "jwt-svid" in formats and not audiences:
        raise table.refusal("audiences", "config_missing_key", "must say whom its JWT-SVIDs may be for")
    on_renewal = table.texts("on_renewal")
    if on_renewal and (files is None or not on_renewal[0].startswith("/")):
        raise table.refusal("on_renewal", "config_value", "needs files, and a program by its absolute path")
    seals = table.texts("seals")
    if seals and files is None:
        raise table.refusal("seals", "config_value", "needs files, where the sealed keys are kept")
    for seal in seals:
        _check_name(table, "seals", seal)
    return Workload(
        _check_name(table, "agent", table.text("agent")),
        formats,
        key,
        audiences,
        table.text("hint") if table.has("hint") else "",
        _callers(table),
        None if files is None else relative_to / files,
        on_renewal,
        seals,
    )


def _callers(table: Table) -> Callers:
    """At least one condition that no process meets by itself: an identity that any program may have is none.
    Which program it is, is read after it has connected, when it may have become another."""
    named = {key: frozenset(table.texts(key)) for key in _CALLERS}
    if not any(named.values()):
        raise table.refusal("user", "config_missing_key", "or group or unit must say which programs may ask")
    if named["path"] and not any(named[key] for key in _PRIVILEGED):
        alone = (
            "alone is no condition: a process can connect and then become that program; name user, group or "
            "unit beside it"
        )
        raise table.refusal("path", "config_value", alone)
    for path in named["path"]:
        if not path.startswith("/"):
            raise table.refusal("path", "config_value", f'has "{path}"; name programs by absolute paths')
    for key, values in named.items():
        if "" in values or (table.has(key) and not values):
            raise table.refusal(key, "config_value", "is empty; give it a value or leave the line out")
    return Callers(**named)


def _check_together(table: Table, workloads: tuple[Workload, ...]) -> None:
    for what, names in (
        ("agent", [workload.agent for workload in workloads]),
        ("sealed key", [seal for workload in workloads for seal in workload.seals]),
    ):
        for name in names:
            if names.count(name) > 1:
                twice = f"names the {what} {name} twice; once is enough"
                raise table.refusal("workload", "config_value", twice)
    count = sum(len(workload.formats) for workload in workloads)
    if count > MAX_CREDENTIALS:
        many = f"asks for {count} credentials; one round has at most {MAX_CREDENTIALS}"
        raise table.refusal("workload", "config_value", many)


def _check_among(table: Table, key: str, values: tuple[str, ...], known: Iterable[str]) -> None:
    known = tuple(known)
    for value in values:
        if value not in known or values.count(value) > 1:
            why = "twice" if value in known else f"which is none of {', '.join(known)}"
            raise table.refusal(key, "config_value", f'has "{value}", {why}')
    if not values:
        raise table.refusal(key, "config_value", "is empty; give it a value or leave the line out")


def _check_name(table: Table, key: str, name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise table.refusal(
            key, "config_value", f'has "{name}"; a name has letters a to z, digits and -, at most 63'
        )
    return name
