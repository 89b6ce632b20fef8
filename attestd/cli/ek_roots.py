"""Which makers of TPMs does this service trust, and how do I trust one more or one less?

The trust store is a directory of certificates, [admission] ek_roots; a running service looks at it once a
second. Files are replaced whole, so that it never reads half of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from attestd.cli.administration import administration
from attestd.cli.ek_roots_files import check_free, file_in, remove_file, write_certificates
from attestd.cli.ek_roots_quarantine import list_quarantined, trust
from attestd.cli.ek_roots_review import (
    NOTE_LIMIT,
    Provenance,
    Review,
    look_at,
    person,
    read_note,
    review_options,
)
from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import config_option, operator, store_of
from attestd.cli.output import json_option, print_object
from attestd.clock import now_ms, rfc3339
from attestd.config import Config
from attestd.store import credentials, devices
from attestd.store.engine import Transaction
from attestd.trust import Root, read_certificates, read_roots
from tpm.errors import EvidenceError, PolicyError
from tpm.verify.certificate import Certificate, key_name
from tpm.verify.endorsement_path import check_authority
from tpm.verify.endorsement_strength import check_strength

_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
_ORGANIZATION = "2.5.4.10"
_COMMON_NAME = "2.5.4.3"
_NAME_DIGITS = 16


@click.group("ek-roots")
def command() -> None:
    """List, import and remove the TPM makers that are trusted."""


command.add_command(list_quarantined)
command.add_command(trust)


@command.command("list")
@config_option
@json_option
def list_(config: Config, as_json: bool) -> None:
    """Print every trusted root: its SHA-256, its maker, until when it is valid, its file."""
    roots = read_roots(config.admission.ek_roots)
    if not roots:
        nobody = f"nobody is trusted: {config.admission.ek_roots} is empty"
        click.echo(f"{nobody}; import a maker's root with `attestd ek-roots import FILE`", err=True)
    for root in roots:
        note = read_note(root.path.read_text(encoding="utf-8", errors="replace")[:NOTE_LIMIT])
        told = describe(root.certificate) | {"file": root.path.name}
        if as_json:
            print_object({**told, **note})
        else:
            click.echo(f"{told['fingerprint'][:_NAME_DIGITS]}  {told['expires_at'][:10]}  {told['key']:<8} "
                       f"{told['maker']}: {told['subject']}  ({told['file']})")  # fmt: skip


@command.command("import")
@config_option
@review_options
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
def import_(config: Config, files: tuple[Path, ...], yes: bool, fingerprints: frozenset[str]) -> None:
    """Trust the certificates in FILE… (PEM or DER); all of them, or none when one is refused.

    Compare the SHA-256 with what the maker publishes: whoever holds a root's key can admit devices. At a
    terminal you are asked; elsewhere name it with --sha256, or the record says that nobody has looked.
    """
    directory = config.admission.ek_roots
    trusted = {root.certificate.sha256: root.path for root in read_roots(directory)}
    now = datetime.fromtimestamp(now_ms() / 1000, UTC)
    wanted = {one.sha256: (one, path) for path in files for one in _read_acceptable(path, now)}
    new = {digest: found for digest, found in wanted.items() if digest not in trusted}
    for digest in new:
        check_free(_place(directory, digest))
    ask, given = person(), Review(yes, fingerprints)
    looked = {
        digest: Provenance(
            path.name, operator(), now_ms(), look_at([one], given, source=str(path), ask=ask)
        )
        for digest, (one, path) in new.items()
    }
    _record(
        config, [("ek-roots import", _identity(new[digest][0]) | looked[digest].details) for digest in new]
    )
    for digest, (one, _) in new.items():
        write_certificates(_place(directory, digest), [one], note=looked[digest].note)
        _show("trusted", one, _place(directory, digest))
        click.echo(f"  from    {looked[digest].summary}")
    for digest in wanted.keys() & trusted.keys():
        _show("trusted already", wanted[digest][0], trusted[digest])


@command.command("remove")
@config_option
@click.argument("which", metavar="FINGERPRINT|FILE")
def remove(config: Config, which: str) -> None:
    """Stop trusting a root, named by eight or more digits of its SHA-256, or all roots of a store's FILE.

    What rests on it gets no new credential from the next second on, and what it has ends.
    """
    directory = config.admission.ek_roots
    path = file_in(directory, which)
    if path is not None:
        removed = _readable_roots(path)
        kept: dict[Path, list[Certificate]] = {path: []}
    else:
        removed, kept = _without(read_roots(directory), which, directory)
    named = ", ".join(one.title for one in removed) or f"{which}, which had no readable root"
    resting = _devices_resting_on(config, {one.sha256 for one in removed})
    about = [_identity(one) for one in removed] or [{"file": which}]
    _record(config, [("ek-roots remove", told) for told in about])
    for place, rest in kept.items():
        if rest:
            write_certificates(place, rest)
        else:
            remove_file(place)
    ended = _end_credentials(config, {one.sha256 for one in removed})
    click.echo(f"removed: {named}; devices enrolled on its word: {resting}, credentials ended: {ended}")


def describe(certificate: Certificate) -> dict[str, str]:
    """What a person compares and a program keeps; the fingerprint is the SHA-256 of the DER."""
    return {
        "fingerprint": certificate.sha256,
        "subject": certificate.title,
        "maker": _maker(certificate),
        "key": key_name(certificate.key),
        "not_before": _time(certificate.not_before),
        "expires_at": _time(certificate.not_after),
    }


def _maker(certificate: Certificate) -> str:
    stated = dict(certificate.subject_attributes)
    name = stated.get(_ORGANIZATION) or stated.get(_COMMON_NAME) or "unnamed"
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _time(moment: datetime) -> str:
    return rfc3339(int(moment.timestamp()) * 1000)


def _read_acceptable(path: Path, now: datetime) -> list[Certificate]:
    """The file's certificates, each of which could be a root; a sentence about the first that could not."""
    try:
        certificates = read_certificates(path)
    except PolicyError as error:
        raise Unusable(f"not imported: {error.detail}") from None
    for certificate in certificates:
        try:
            check_authority(certificate, below=0, now=now)
            check_strength(certificate.key, whose=certificate.title)
        except EvidenceError as error:
            raise Failure(
                f"{path} is not imported: {error.detail} Name the maker's root or issuing authority."
            ) from None
    return certificates


def _without(
    roots: Sequence[Root], which: str, directory: Path
) -> tuple[list[Certificate], dict[Path, list[Certificate]]]:
    """The root that begins with these digits, and what its files hold without it."""
    digits = which.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        where = f"no file in {directory} and no eight digits of a SHA-256"
        raise Failure(f"{which} is {where}; see `attestd ek-roots list`")
    found = {
        one.certificate.sha256: one.certificate for one in roots if one.certificate.sha256.startswith(digits)
    }
    if not found:
        raise Failure(f"no trusted root begins with {which}; see `attestd ek-roots list`")
    if len(found) > 1:
        raise Failure(f"{which} begins {len(found)} fingerprints; give more digits")
    places = {one.path for one in roots if one.certificate.sha256 in found}
    kept = {
        place: [one.certificate for one in roots if one.path == place and one.certificate.sha256 not in found]
        for place in places
    }
    return list(found.values()), kept


def _readable_roots(path: Path) -> list[Certificate]:
    """What a file of the store holds; nothing if it is the one that cannot be read and has to go."""
    try:
        return read_certificates(path)
    except PolicyError:
        return []


def _devices_resting_on(config: Config, roots: set[str]) -> int:
    with store_of(config) as store:
        known = store.read(devices.list_all)
    return sum(device.root_sha256 in roots and device.state != "retired" for device in known)


def _end_credentials(config: Config, roots: set[str]) -> int:
    with store_of(config) as store:
        now = now_ms()
        return store.write(
            lambda tx: sum(
                credentials.end_for_root(tx, root, reason="root_withdrawn", now=now) for root in sorted(roots)
            )
        )


def _record(config: Config, changes: Sequence[tuple[str, dict[str, str]]]) -> None:
    """Before the files change: nobody becomes trusted, or ceases to be, without a record of who did it."""
    if not changes:
        return
    with administration(config) as office:

        def record_all(tx: Transaction) -> None:
            for verb, details in changes:
                office.record(tx, verb, details)

        office.change(record_all)


def _place(directory: Path, digest: str) -> Path:
    return directory / f"{digest[:_NAME_DIGITS]}.pem"


def _identity(certificate: Certificate) -> dict[str, str]:
    return {"root_sha256": certificate.sha256, "subject": certificate.title}


def _show(done: str, certificate: Certificate, path: Path) -> None:
    told = describe(certificate)
    click.echo(f"{done}: {told['subject'] or 'no subject'}")
    click.echo(f"  sha256  {told['fingerprint']}")
    click.echo(f"  key     {told['key']}, valid from {told['not_before']} to {told['expires_at']}")
    click.echo(f"  file    {path.name}")
