"""What did the operator configure? The one place that reads the configuration file and the environment.

Everything is checked here once, so that a `Config` which exists is one that can be served: unknown keys,
wrong types and combinations that would expose the service are refused with one line and the next step. Of the
files that it names only the list of `ek_allow` is opened here; `attestd check` looks at the others.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from attestd.addresses import is_loopback, join, split_listen
from attestd.counterparts import Resource, SubjectIssuer, read_resources, read_subject_issuers
from attestd.denied import read_denied_firmware, read_denied_manufacturers
from attestd.listening import Tls, read_external_url, read_listen, read_tls
from attestd.spiffe import validate_trust_domain
from attestd.tables import Table
from tpm.errors import PolicyError

SYSTEM_FILE = Path("/etc/attestd/attestd.toml")
LOCAL_FILE = Path("attestd.toml")

_DEVICE_ID = re.compile(r"[0-9a-f]{64}")
_MIB = 1 << 20

_SECTIONS = ("admission", "tls", "limits", "subject_issuer", "resource")
_KNOWN = ("trust_domain", "listen", "external_url", "database", "keys", "workers", *_SECTIONS)


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may become a device and stay one. Pending devices are bounded in number and in age (seconds)."""

    ek_roots: Path
    ek_allow: frozenset[str]
    auto_admit: bool
    tofu: bool
    pending_max: int
    pending_age: int
    denied_manufacturers: frozenset[str]
    denied_firmware: frozenset[int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request or source may cost. Durations in seconds, sizes in bytes; a rate of 0 is no bound."""

    nonce_ttl: int
    clock_skew: int
    body: int
    attestation_body: int
    unproven_per_second: int
    device_per_minute: int
    audit_unproven: int


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that can be served. Paths are absolute, SQLite's in `database` too."""

    path: Path
    trust_domain: str
    host: str
    port: int
    external_url: str
    database: str
    keys: Path
    workers: int
    admission: Admission
    tls: Tls
    limits: Limits
    subject_issuers: tuple[SubjectIssuer, ...]
    resources: tuple[Resource, ...]

    @property
    def listen(self) -> str:
        """HOST:PORT as a listener takes it; an IPv6 address in brackets."""
        return join(self.host, self.port)

    @property
    def exposed(self) -> bool:
        """Can anything but this machine reach the service?"""
        mtls = self.tls.mtls_listen
        hosts = [self.host] if mtls is None else [self.host, split_listen(mtls)[0]]
        return self.tls.behind_proxy or not all(is_loopback(host) for host in hosts)

    @property
    def mtls_url(self) -> str | None:
        """Our address on the listener that demands a certificate: host and path of `external_url`, another
        port."""
        if self.tls.mtls_listen is None:
            return None
        parts = urlsplit(self.external_url)
        return f"https://{join(str(parts.hostname), split_listen(self.tls.mtls_listen)[1])}{parts.path}"

    def unsafe_modes(self) -> tuple[str, ...]:
        """The switches in use that weaken who becomes a device; `exposure` adds what is trusted."""
        modes = {"tofu": self.admission.tofu, "auto_admit": self.admission.auto_admit}
        return tuple(name for name, on in modes.items() if on)


def environment() -> Mapping[str, str]:
    """The process's environment, read nowhere else."""
    return os.environ


def find_config(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The file in use: the one named, else ATTESTD_CONFIG, ./attestd.toml, /etc/attestd/attestd.toml."""
    if path is not None:
        return path
    if environ.get("ATTESTD_CONFIG"):
        return Path(environ["ATTESTD_CONFIG"])
    for candidate in (LOCAL_FILE, SYSTEM_FILE):
        if candidate.is_file():
            return candidate
    raise PolicyError(
        "file_unreadable",
        "no configuration: neither ./attestd.toml nor /etc/attestd/attestd.toml is there; "
        "make one with `attestd init DIR --trust-domain NAME` or name yours with --config FILE",
    )


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration, checked. PolicyError otherwise: one line that says where, what and the next step.

    Its reason is `file_unreadable` where there is no file to read, `config_…` where what it says is at fault.
    """
    found = find_config(path, environ)
    top = _open(found)
    folder = found.absolute().parent
    tls = read_tls(top, folder)
    host, port = read_listen(top, tls)
    external_url = read_external_url(top, host, port, tls)
    database = _read_database(top, folder)
    return Config(
        path=found.absolute(),
        trust_domain=_read_trust_domain(top),
        host=host,
        port=port,
        external_url=external_url,
        database=database,
        keys=folder / top.text("keys", "keys"),
        workers=_read_workers(top, database),
        admission=_read_admission(top, folder),
        tls=tls,
        limits=_read_limits(top),
        subject_issuers=read_subject_issuers(top, folder, external_url=external_url),
        resources=read_resources(top, folder),
    )


def _open(path: Path) -> Table:
    try:
        values = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise PolicyError("config_syntax", f"{path}: not TOML: {error}") from None
    return Table(values, source=str(path), known=_KNOWN)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        why = error.strerror or "unreadable"
        raise PolicyError(
            "file_unreadable", f"{path}: {why}; name a readable file with --config FILE"
        ) from None
    except UnicodeDecodeError:
        raise PolicyError("config_syntax", f"{path}: not UTF-8 text; save it as UTF-8") from None


def _keys_of(section: type[Admission | Limits]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(section))


def _read_trust_domain(top: Table) -> str:
    name = top.text("trust_domain")
    try:
        validate_trust_domain(name)
    except ValueError as error:
        raise top.refusal("trust_domain", "config_value", f'is "{name}"; {error}') from None
    return name


def _read_database(top: Table, folder: Path) -> str:
    url = top.text("database", "sqlite:attestd.db")
    if url.startswith("sqlite:") and len(url) > len("sqlite:") and not url.startswith("sqlite://"):
        return f"sqlite:{folder / url.removeprefix('sqlite:')}"
    if url.startswith("postgresql://"):
        return url
    raise top.refusal("database", "config_value", 'must be "sqlite:FILE" or "postgresql://USER@HOST/NAME"')


def _read_workers(top: Table, database: str) -> int:
    if database.startswith("sqlite:"):
        workers = top.integer("workers", 1, least=1, most=64)
        if workers != 1:
            raise top.refusal(
                "workers",
                "config_value",
                "must be 1 with SQLite, which has one writer; use PostgreSQL for more",
            )
        return workers
    return top.integer("workers", min(os.cpu_count() or 1, 64), least=1, most=64)


def _read_admission(top: Table, folder: Path) -> Admission:
    table = top.table("admission", _keys_of(Admission))
    return Admission(
        ek_roots=folder / table.text("ek_roots", "ek-roots"),
        ek_allow=_read_ek_allow(table, folder),
        auto_admit=table.flag("auto_admit", False),
        tofu=table.flag("tofu", False),
        pending_max=table.integer("pending_max", 1000, least=0, most=1_000_000),
        pending_age=table.seconds("pending_age", "7d", least=60, most=365 * 86400),
        denied_manufacturers=read_denied_manufacturers(table),
        denied_firmware=read_denied_firmware(table),
    )


def _read_ek_allow(table: Table, folder: Path) -> frozenset[str]:
    """Device identifiers, from the list itself or from a file with one a line ("#" begins a comment)."""
    if isinstance(table.raw("ek_allow"), str):
        path = folder / table.text("ek_allow")
        lines = (line.partition("#")[0].strip() for line in _read_text(path).splitlines())
        named = tuple(line for line in lines if line)
    else:
        named = table.texts("ek_allow")
    for identifier in named:
        if not _DEVICE_ID.fullmatch(identifier):
            what = f'has "{identifier[:80]}"; a device identifier is 64 lower-case hex digits'
            raise table.refusal("ek_allow", "config_value", what)
    return frozenset(named)


def _read_limits(top: Table) -> Limits:
    table = top.table("limits", _keys_of(Limits))
    return Limits(
        nonce_ttl=table.seconds("nonce_ttl", "60s", least=1, most=3600),
        clock_skew=table.seconds("clock_skew", "5s", least=0, most=300),
        body=table.integer("body", 4 * _MIB, least=1024, most=64 * _MIB),
        attestation_body=table.integer("attestation_body", 32 * _MIB, least=1024, most=256 * _MIB),
        unproven_per_second=table.integer("unproven_per_second", 50, least=0, most=1_000_000),
        device_per_minute=table.integer("device_per_minute", 60, least=0, most=1_000_000),
        audit_unproven=table.integer("audit_unproven", 10, least=0, most=1_000_000),
    )
