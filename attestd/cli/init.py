"""How does a directory that serves come to be?

Everything is made in a hidden directory inside it and moved to its place when it is whole, the configuration
last: a directory with an `attestd.toml` is complete, whenever the power went.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestd.cli.administration import Administration, administration
from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import keyring_of
from attestd.cli.output import progress
from attestd.clock import now_ms
from attestd.config import Config, load_config
from attestd.issue.key_files import ALGORITHMS, read_key_files
from attestd.issue.keys import create_keys
from attestd.store import meta, signing_keys
from attestd.store.engine import Transaction
from attestd.store.signing_keys import SigningKey
from attestd.store.store import Store
from tpm.errors import PolicyError

CONFIGURATION = "attestd.toml"
DATABASE = "attestd.db"
_PIECES = ("keys", "ek-roots", DATABASE)

_TEMPLATE = """\
# The configuration of attestd. Paths are relative to this file. What is commented out shows the default.
# `attestd check` says whether it holds; `attestd serve` reads it at the start.

trust_domain = {trust_domain}            # of every SPIFFE ID that is issued; cannot change later
listen = {listen}
external_url = {external_url}            # how devices reach the service; they sign it into every request
database = {database}                    # or "postgresql://USER@HOST/NAME"
keys = "keys"                            # signing keys; 0700, files 0600
# workers = 1                            # processes; PostgreSQL: the number of processors

[admission]
ek_roots = "ek-roots"                    # the TPM makers that are trusted: `attestd ek-roots import FILE`
ek_allow = []                            # devices that are active at once: identifiers, or a file of them
auto_admit = false                       # true: every genuine TPM of these makers is active at once
tofu = false                             # true: TPMs of unknown makers wait for approval, not refused
# denied_manufacturers = []              # makers whose TPMs are refused, like "IFX", whoever vouches for them
# denied_firmware = []                   # TPM firmware that is refused: 16 hex digits of its quotes
# pending_max = 1000                     # devices that may wait for approval at once
# pending_age = "7d"                     # how long one may wait

[tls]                                    # or behind_proxy = true; needed where others can connect
# certificate = "tls/cert.pem"
# key = "tls/key.pem"
# behind_proxy = false                   # true: a proxy in front of us ends TLS
# mtls_listen = "127.0.0.1:8441"         # a second address, where clients show an X.509-SVID; off by default

[limits]
# nonce_ttl = "60s"                      # how long a device may take to answer a challenge
# clock_skew = "5s"                      # how far clocks of replicas may differ
# body = 4194304                         # bytes of a request
# attestation_body = 33554432            # bytes of an attestation, which may carry logs
# unproven_per_second = 50               # requests of one source before its key is verified; 0: any number
# device_per_minute = 60                 # attestations of one device; 0: any number
# audit_unproven = 10                    # unproven refusals a minute and code with a record each; 0: all

# [[subject_issuer]]                     # an OpenID Provider for whose users agents may act; none by default
# issuer = "https://login.example.org"
# audience = "attestd"                   # what a user's token must be meant for
# jwks = "discovery"                     # or "file:keys/login.jwks"; fetched from this issuer alone
# allow_private = false                  # true: fetched from private addresses too

# [[resource]]                           # who may ask if a token is good (introspection); none by default
# audience = "https://tools.example.org" # it sees tokens for this audience only
# jwks = "file:keys/tools.jwks"          # its public keys, with which it proves itself
# client_id = "https://tools.example.org" # how it names itself; else its audience
"""


@click.command("init")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--trust-domain", required=True, metavar="NAME", help='Of all SPIFFE IDs, like "example.org".')
@click.option("--listen", default="127.0.0.1:8440", show_default=True, metavar="HOST:PORT")
@click.option("--database", default=f"sqlite:{DATABASE}", show_default=True, metavar="URL")
def command(directory: Path, trust_domain: str, listen: str, database: str) -> None:
    """Make DIR a directory that serves: configuration, signing keys, trust store, database."""
    _refuse_used(directory)
    with _staging(directory) as staging:
        config = _write_configuration(staging, trust_domain, listen, database)
        with progress("Making the signing keys"):
            create_keys(config.keys, trust_domain=trust_domain, now=now_ms())
        (staging / "ek-roots").mkdir(mode=0o700)
        with progress("Making the database"):
            _make_database(config)
        _move(staging, directory)
    _print_next_steps(directory, config)


def _refuse_used(directory: Path) -> None:
    if os.path.lexists(directory / CONFIGURATION):
        raise Failure(f"{directory} has an {CONFIGURATION} already; choose another directory")
    for piece in _PIECES:
        if os.path.lexists(directory / piece):
            raise Failure(f"{directory / piece} is there already; move it away, or choose another directory")


@contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """A closed directory inside it that is gone afterwards; if all fails, so is a directory made for it."""
    found = directory.exists()
    staging = directory / f".init-{secrets.token_hex(8)}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        shutil.rmtree(staging)
        if not found and not any(directory.iterdir()):
            directory.rmdir()


def _write_configuration(staging: Path, trust_domain: str, listen: str, database: str) -> Config:
    """Write the configuration and read it back: what `serve` would refuse is refused here."""
    values = {"trust_domain": trust_domain, "listen": listen, "database": database}
    # A URL that is written down does not change when `listen` does.
    values["external_url"] = f"http://{listen}"
    quoted = {name: json.dumps(value, ensure_ascii=True) for name, value in values.items()}
    text = "".join(_aligned(line) for line in _TEMPLATE.format(**quoted).splitlines(keepends=True))
    path = staging / CONFIGURATION
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        return load_config(path, {})
    except PolicyError as error:
        raise Unusable(f"init: {error.detail.removeprefix(f'{path}: ')}") from None


def _aligned(line: str) -> str:
    """Comments begin in one column, however long the values are."""
    value, mark, comment = line.partition("  # ")
    return f"{value.rstrip():<40} # {comment}" if mark else line


def _make_database(config: Config) -> None:
    now = now_ms()
    store = Store.open(config.database)
    try:
        store.migrate()
        store.write(lambda tx: _register_keys(tx, config, now))
    finally:
        store.close()
    with administration(config) as admin:
        fingerprint = keyring_of(config, admin.store).fingerprint()
        admin.change(lambda tx: _record(tx, admin, fingerprint, config.trust_domain))


def _record(tx: Transaction, admin: Administration, fingerprint: str, trust_domain: str) -> None:
    """Every replica of this service must hold these keys; who made them is the first audit record."""
    meta.agree_on_key(tx, "keys", fingerprint)
    admin.record(tx, "init", {"trust_domain": trust_domain, "keys": fingerprint})


def _register_keys(tx: Transaction, config: Config, now: int) -> None:
    """The first keys sign from the start: nobody can have cached an older set."""
    if signing_keys.list_all(tx):
        raise Failure("the database has signing keys of another directory already; name an empty database")
    for key in read_key_files(config.keys).keys:
        public = key.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        row = SigningKey(
            kid=key.kid,
            use=key.use,
            alg=ALGORITHMS[key.use][0],
            state="active",
            fingerprint=hashlib.sha256(public).hexdigest(),
            created_at=now,
            published_at=now,
            activated_at=now,
        )
        signing_keys.insert(tx, row)


def _move(staging: Path, directory: Path) -> None:
    """Move what was made to its place, the configuration last."""
    pieces = [piece for piece in staging.iterdir() if piece.name != CONFIGURATION]
    for piece in pieces:
        if os.path.lexists(directory / piece.name):
            raise Failure(f"{directory / piece.name} is there already; move it away, or choose another name")
    for piece in pieces:
        piece.rename(directory / piece.name)
    # Unlike a rename, a link is never laid over an existing file.
    os.link(staging / CONFIGURATION, directory / CONFIGURATION)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _print_next_steps(directory: Path, config: Config) -> None:
    named = f"--config {directory / CONFIGURATION}"
    click.echo(f"{directory} is ready for trust domain {config.trust_domain}. Next:")
    click.echo(f"  attestd ek-roots import FILE {named}    trust a TPM maker")
    click.echo(f"  attestd policy apply FILE {named}       say how machines must have booted")
    click.echo(f"  attestd serve {named}")
