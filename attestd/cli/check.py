"""Would this configuration serve: is everything that it names there, closed to others, and in agreement?

Nothing is changed, and nothing is asked of the network but the database.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attestd.cli.options import config_option, keyring_of, require_database
from attestd.cli.output import json_option
from attestd.cli.report import Check, Line, lines_of, tell
from attestd.clock import now_ms, rfc3339
from attestd.config import Config
from attestd.exposure import emulators_of, refuse_exposed_emulators
from attestd.issue.key_files import ALGORITHMS, read_key_files
from attestd.oauth.key_sets import FileKeys
from attestd.policy.document import Policy, load_policy
from attestd.store import meta, policies
from attestd.store.errors import NoTables
from attestd.store.migrations import MIGRATIONS
from attestd.store.store import Store
from attestd.trust import read_roots
from tpm.errors import AttestationError

_SOON_DAYS = 14


@click.command("check")
@config_option
@json_option
def command(config: Config, as_json: bool) -> None:
    """Look at the configuration and everything that it names; exit 1 if it would not serve."""
    store = Store.open(config.database)
    try:
        tell(lines_of(checks_of(config, store)), as_json=as_json)
    finally:
        store.close()


def checks_of(config: Config, store: Store) -> list[tuple[str, Check]]:
    """Everything that is looked at, what others rest on first."""
    return [
        ("configuration", lambda: _configuration(config)),
        ("admission", lambda: _admission(config)),
        ("tls", lambda: _tls(config, now_ms())),
        ("keys", lambda: _keys(config)),
        ("counterparts", lambda: _counterparts(config)),
        ("ek-roots", lambda: _ek_roots(config)),
        ("database", lambda: _database(config, store, now_ms())),
        ("signing keys", lambda: _unless_empty(_signing_keys(config, store, now_ms()))),
        ("policies", lambda: _unless_empty(_policies(config, store))),
    ]


def _unless_empty(lines: Iterator[Line]) -> Iterator[Line]:
    """Nothing of what an empty database does not have: that it is empty has been told."""
    with suppress(NoTables):
        yield from lines


def _configuration(config: Config) -> Iterator[Line]:
    mode = stat.S_IMODE(config.path.stat().st_mode)
    if mode & 0o022:
        yield Line("fault", "configuration", f"others can write {config.path} (mode {mode:o}); chmod 600 it")
    elif mode & 0o044 and urlsplit(config.database).password:
        detail = f"others can read the database's password in {config.path} (mode {mode:o}); chmod 600 it"
        yield Line("fault", "configuration", detail)
    else:
        yield Line("ok", "configuration", f"{config.path}: {config.listen} as {config.external_url}")


def _admission(config: Config) -> Iterator[Line]:
    modes = config.unsafe_modes()
    if modes:
        yield Line("warning", "admission", f"weakened by {', '.join(modes)}; set to false in production")
    else:
        yield Line(
            "ok", "admission", f"by approval; {len(config.admission.ek_allow)} devices allowed beforehand"
        )


def _tls(config: Config, now: int) -> Iterator[Line]:
    if config.tls.certificate is None or config.tls.key is None:
        served = "a proxy in front ends TLS" if config.tls.behind_proxy else "loopback only, without TLS"
        yield Line("ok", "tls", served)
        return
    certificate = x509.load_pem_x509_certificates(config.tls.certificate.read_bytes())[0]
    yield from _closed(config.tls.key)
    key = load_pem_private_key(config.tls.key.read_bytes(), None)
    if key.public_key() != certificate.public_key():
        detail = (
            f"{config.tls.key} is not the key of {config.tls.certificate}; put the two that belong together"
        )
        yield Line("fault", "tls", detail)
    yield _validity(config.tls.certificate, certificate, datetime.fromtimestamp(now / 1000, UTC))
    if config.tls.mtls_listen is not None:
        yield Line("ok", "tls", f"{config.tls.mtls_listen} asks for certificates, as {config.mtls_url}")


def _closed(key: Path) -> Iterator[Line]:
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & 0o077:
        yield Line("fault", "tls", f"{key} is open to others (mode {mode:o}): chmod 600 it")


def _validity(path: Path, certificate: x509.Certificate, now: datetime) -> Line:
    until = certificate.not_valid_after_utc
    said = f"{path} is valid until {until:%Y-%m-%d}"
    if not certificate.not_valid_before_utc <= now <= until:
        return Line("fault", "tls", f"{said}, not today; renew it, then send SIGHUP to the service")
    if (until - now).days < _SOON_DAYS:
        return Line("warning", "tls", f"{said}; renew it, then send SIGHUP to the service")
    return Line("ok", "tls", said)


def _keys(config: Config) -> Iterator[Line]:
    files = read_key_files(config.keys)
    for key in files.keys:
        if key.authority is not None and key.authority.trust_domain != config.trust_domain:
            detail = (
                f"the certificate of {key.kid} is for {key.authority.trust_domain}, not {config.trust_domain}"
            )
            yield Line(
                "fault", "keys", f"{detail}; correct trust_domain, or use the directory of the other one"
            )
    yield Line("ok", "keys", f"{config.keys}: {len(files.keys)} keys, closed to others")


def _counterparts(config: Config) -> Iterator[Line]:
    """Key files are read; what is fetched is not fetched here."""
    parties = [(one.issuer, one.jwks) for one in config.subject_issuers]
    parties += [(one.client_id, one.jwks) for one in config.resources]
    for name, keys in parties:
        if isinstance(keys, Path):
            found = len(FileKeys(keys).keys(now=now_ms()))
            yield Line("ok", "counterparts", f"{name}: {found} keys in {keys}")
        else:
            yield Line("ok", "counterparts", f"{name}: keys are fetched from it when they are needed")
    if not parties:
        yield Line("ok", "counterparts", "no OpenID Provider of users, and no resource")


def _ek_roots(config: Config) -> Iterator[Line]:
    roots = read_roots(config.admission.ek_roots)
    if not roots:
        detail = f"{config.admission.ek_roots} is empty: nobody is trusted; `attestd ek-roots import FILE`"
        yield Line("warning", "ek-roots", detail)
        return
    certificates = [root.certificate for root in roots]
    refuse_exposed_emulators(config, certificates)
    for emulator in emulators_of(certificates):
        yield Line("warning", "ek-roots", f"{emulator.title} vouches for software TPMs; for tests only")
    yield Line("ok", "ek-roots", f"{config.admission.ek_roots}: {len(roots)} roots")


def _database(config: Config, store: Store, now: int) -> Iterator[Line]:
    require_database(config)
    try:
        found = int(store.read(lambda tx: meta.get(tx, "schema")) or 0)
    except NoTables:
        detail = "is empty; `attestd serve` makes its tables and writes down the keys of this directory"
        yield Line("warning", "database", detail)
        return
    newest = MIGRATIONS[-1][0]
    if found > newest:
        yield Line(
            "fault",
            "database",
            f"is at version {found}, this attestd knows {newest}; install the newer attestd",
        )
        return
    highest = store.read(meta.highest_time)
    if now < highest - config.limits.clock_skew * 1000:
        yield Line(
            "fault", "database", f"has seen {rfc3339(highest)}, later than now; correct this machine's clock"
        )
    if found < newest:
        yield Line("warning", "database", f"is at version {found}; `attestd serve` brings it to {newest}")
    else:
        yield Line("ok", "database", f"reachable, at version {found}")


def _signing_keys(config: Config, store: Store, now: int) -> Iterator[Line]:
    keys = keyring_of(config, store).at(now)
    for kid in keys.missing:
        detail = f"{kid} is published, but its file is not in {config.keys}; copy it from another replica"
        yield Line("fault", "signing keys", detail)
    for use in ALGORITHMS:
        keys.signer(use)
    yield Line("ok", "signing keys", f"one signs for each of {', '.join(ALGORITHMS)}")


def _policies(config: Config, store: Store) -> Iterator[Line]:
    active = store.read(policies.active)
    known = {one.issuer for one in config.subject_issuers}
    for version in active:
        try:
            policy = load_policy(version.source, version.files)
        except AttestationError as error:
            yield Line("fault", "policies", f"{version.name}@{version.version}: {error.detail}")
        else:
            yield from _unknown_issuers(f"{version.name}@{version.version}", policy, known)
    if not active:
        yield Line("warning", "policies", "none is in force: nothing is issued; `attestd policy apply FILE`")
    else:
        yield Line("ok", "policies", f"{', '.join(f'{one.name}@{one.version}' for one in active)} in force")


def _unknown_issuers(label: str, policy: Policy, known: Collection[str]) -> Iterator[Line]:
    """A delegation that names a provider of whom this service knows no keys gives nothing."""
    for grant in policy.grants:
        for issuer in grant.delegation.issuers if grant.delegation is not None else ():
            if issuer not in known:
                detail = (
                    f"{label} lets {grant.agent} act for users of {issuer}, which no [[subject_issuer]] names"
                )
                yield Line("warning", "policies", f"{detail}; add it to the configuration")
