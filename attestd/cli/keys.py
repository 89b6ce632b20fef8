"""Which keys does this service sign with, and how is one exchanged for another?

    attestd keys add --use jwt        made and published; relying parties learn it while the old one signs
    attestd keys activate KID         five minutes later: signs from now on, the old one stays published
    attestd keys retire KID           of the old one, when the last credential that it signed has ended

A running service follows within a second. Files of retired keys stay: audit heads are verified with them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestd.cli.administration import Administration, administration
from attestd.cli.failures import Failure
from attestd.cli.options import config_option, keyring_of, store_of
from attestd.cli.output import json_option, print_object
from attestd.clock import rfc3339
from attestd.config import Config
from attestd.issue import rotation
from attestd.issue.key_files import ALGORITHMS, KeyFile, create_key, read_key_files, remove_key
from attestd.store import meta, signing_keys
from attestd.store.engine import Transaction
from attestd.store.signing_keys import SigningKey

_LEAST_DIGITS = 4


@click.group("keys")
def command() -> None:
    """List, add, activate and retire signing keys."""


@command.command("list")
@config_option
@json_option
def list_(config: Config, as_json: bool) -> None:
    """Print every key: its name, what it signs, and whether it is published, active or retired."""
    with store_of(config) as store:
        keys = store.read(signing_keys.list_all)
    for key in sorted(keys, key=lambda key: (tuple(ALGORITHMS).index(key.use), key.published_at, key.kid)):
        if as_json:
            print_object(describe(key))
        else:
            click.echo(f"{key.kid}  {key.use:<5}  {key.alg:<5}  {key.state:<9}  {_when(key)}")


@command.command("add")
@config_option
@click.option("--use", required=True, type=click.Choice(list(ALGORITHMS)), help="What the key is to sign.")
@click.option("--alg", metavar="ALG", help="ES256; for jwt also RS256 or PS256.")
def add(config: Config, use: str, alg: str | None) -> None:
    """Make a key and publish it; it signs nothing before it is activated."""
    alg = alg or ALGORITHMS[use][0]
    if alg not in ALGORITHMS[use]:
        raise click.UsageError(f"a key for {use} signs with {' or '.join(ALGORITHMS[use])}, not with {alg}")
    with administration(config) as admin:
        key = create_key(config.keys, use=use, alg=alg, trust_domain=config.trust_domain, now=admin.now)
        try:
            fingerprint = read_key_files(config.keys).fingerprint()
            admin.change(lambda tx: _publish(tx, admin, key, alg=alg, fingerprint=fingerprint))
        except BaseException:
            # A file that the store knows nothing of would tell replicas apart for no reason.
            remove_key(config.keys, key)
            raise
        known_at = admin.now + rotation.PUBLISH_SECONDS * 1000
    click.echo(f"added: {key.kid} for {use}, {alg}; published, signs nothing yet")
    click.echo(f"  copy its files from {config.keys} to every other replica")
    click.echo(f"  attestd keys activate {key.kid}    from {rfc3339(known_at)} on, when caches know it")


@command.command("activate")
@config_option
@click.argument("kid", metavar="KID")
@click.option("--now", "at_once", is_flag=True, help="Do not wait until caches know the key.")
def activate(config: Config, kid: str, at_once: bool) -> None:
    """Let a published key sign from now on; the one that did stays published."""
    with administration(config) as admin:
        here = keyring_of(config, admin.store).at(admin.now)

        def work(tx: Transaction) -> SigningKey:
            key = _find(tx, kid)
            rotation.may_activate(key, now=admin.now, at_once=at_once)
            if key.kid in here.missing:
                raise Failure(f"the files of {key.kid} are not in {config.keys}; copy them here first")
            if not signing_keys.activate(tx, key.kid, admin.now):
                raise Failure(f"{key.kid} changed meanwhile; see `attestd keys list`")
            admin.record(tx, "keys activate", {"kid": key.kid, "use": key.use, "at_once": at_once})
            return key

        key = admin.change(work)
    click.echo(f"active: {key.kid} signs everything for {key.use} from now on")


@command.command("retire")
@config_option
@click.argument("kid", metavar="KID")
def retire(config: Config, kid: str) -> None:
    """Publish a key no more; refused while something that it signed is alive."""
    with administration(config) as admin:

        def work(tx: Transaction) -> SigningKey:
            key = _find(tx, kid)
            rotation.may_retire(key, now=admin.now)
            moment = rotation.moment_of_change(signing_keys.list_all(tx), now=admin.now)
            if not signing_keys.retire(tx, key.kid, moment):
                raise Failure(f"{key.kid} changed meanwhile; see `attestd keys list`")
            admin.record(tx, "keys retire", {"kid": key.kid, "use": key.use})
            return key

        key = admin.change(work)
    click.echo(f"retired: {key.kid} is published no more")


def describe(key: SigningKey) -> dict[str, Any]:
    """What programs read; times in RFC 3339 or null."""
    return {
        "kid": key.kid,
        "use": key.use,
        "alg": key.alg,
        "state": key.state,
        "published_at": rfc3339(key.published_at),
        "activated_at": _time(key.activated_at),
        "retired_at": _time(key.retired_at),
        "last_expiry": _time(key.last_expiry or None),
        "fingerprint": key.fingerprint,
    }


def _publish(tx: Transaction, admin: Administration, key: KeyFile, *, alg: str, fingerprint: str) -> None:
    public = key.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    moment = rotation.moment_of_change(signing_keys.list_all(tx), now=admin.now)
    row = SigningKey(
        kid=key.kid,
        use=key.use,
        alg=alg,
        state="published",
        fingerprint=hashlib.sha256(public).hexdigest(),
        created_at=admin.now,
        published_at=moment,
    )
    signing_keys.insert(tx, row)
    meta.replace_key(tx, "keys", fingerprint)
    admin.record(tx, "keys add", {"kid": key.kid, "use": key.use, "alg": alg, "keys": fingerprint})


def _find(tx: Transaction, named: str) -> SigningKey:
    """The key of that name, or whose name alone begins so."""
    found = [key for key in signing_keys.list_all(tx) if key.kid.startswith(named)]
    if len(found) == 1 and len(named) >= _LEAST_DIGITS:
        return found[0]
    why = "names several keys; give more digits" if len(found) > 1 else "names no key"
    raise Failure(f"{named!r} {why}; see `attestd keys list`")


def _when(key: SigningKey) -> str:
    """What of its times matters in its state."""
    match key.state:
        case "retired":
            return f"since {_time(key.retired_at)}"
        case "active":
            return f"since {_time(key.activated_at)}"
        case _ if key.activated_at is None:
            return f"since {_time(key.published_at)}, never active"
        case _:
            ends = _time(key.last_expiry or None)
            return f"signed until {ends} at the latest" if ends else "signed nothing that is alive"


def _time(moment: int | None) -> str | None:
    return None if moment is None else rfc3339(moment)
