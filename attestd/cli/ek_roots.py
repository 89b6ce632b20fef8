"""Which makers of TPMs does this service trust, and how do I trust one more or one less?

The trust store is a directory of certificates, [admission] ek_roots; a running service looks at it once a
second. Files are replaced whole, so that it never reads half of one.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric import rsa

from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import config_option, json_option, print_object
from attestd.clock import now_ms, rfc3339
from attestd.config import Config
from attestd.trust import Root, read_certificates, read_roots
from tpm.errors import EvidenceError, PolicyError
from tpm.verify.certificate import Certificate
from tpm.verify.endorsement_path import check_authority
from tpm.verify.endorsement_strength import check_strength

_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
_ORGANIZATION = "2.5.4.10"
_COMMON_NAME = "2.5.4.3"
_NAME_DIGITS = 16
_CURVES = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}


@click.group("ek-roots")
def command() -> None:
    """List, import and remove the TPM makers that are trusted."""


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
        told = describe(root.certificate) | {"file": root.path.name}
        if as_json:
            print_object(told)
        else:
            click.echo(f"{told['fingerprint'][:_NAME_DIGITS]}  {told['expires_at'][:10]}  {told['key']:<8} "
                       f"{told['maker']}: {told['subject']}  ({told['file']})")  # fmt: skip


@command.command("import")
@config_option
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
def import_(config: Config, files: tuple[Path, ...]) -> None:
    """Trust the certificates in FILE… (PEM or DER); all of them, or none when one is refused.

    Compare the SHA-256 with what the maker publishes: whoever holds a root's key can admit devices.
    """
    directory = config.admission.ek_roots
    trusted = {root.certificate.sha256: root.path.name for root in read_roots(directory)}
    now = datetime.fromtimestamp(now_ms() / 1000, UTC)
    wanted = {one.sha256: one for path in files for one in _read_acceptable(path, now)}
    for certificate in wanted.values():
        known = trusted.get(certificate.sha256)
        name = known or f"{certificate.sha256[:_NAME_DIGITS]}.pem"
        if known is None:
            _write(directory / name, [certificate])
        told = describe(certificate)
        click.echo(f"{'trusted already' if known else 'trusted'}: {told['subject'] or 'no subject'}")
        click.echo(f"  sha256  {told['fingerprint']}")
        click.echo(f"  key     {told['key']}, valid from {told['not_before']} to {told['expires_at']}")
        click.echo(f"  file    {name}")


@command.command("remove")
@config_option
@click.argument("which", metavar="FINGERPRINT|FILE")
def remove(config: Config, which: str) -> None:
    """Stop trusting a root, named by eight or more digits of its SHA-256, or all roots of a store's FILE.

    What rests on it gets no new credential from the next second on.
    """
    directory = config.admission.ek_roots
    path = _file_in(directory, which)
    if path is not None:
        _remove_file(path)
        click.echo(f"removed: {path.name}; devices that rest on it alone get no new credential")
        return
    root = _find(read_roots(directory), which, directory)
    for place in {
        one.path for one in read_roots(directory) if one.certificate.sha256 == root.certificate.sha256
    }:
        rest = [one for one in read_certificates(place) if one.sha256 != root.certificate.sha256]
        if rest:
            _write(place, rest, replace=True)
        else:
            _remove_file(place)
    click.echo(f"removed: {root.certificate.title} ({root.certificate.sha256})")


def describe(certificate: Certificate) -> dict[str, str]:
    """What a person compares and a program keeps; the fingerprint is the SHA-256 of the DER."""
    return {
        "fingerprint": certificate.sha256,
        "subject": certificate.title,
        "maker": _maker(certificate),
        "key": _key(certificate),
        "not_before": _time(certificate.not_before),
        "expires_at": _time(certificate.not_after),
    }


def _maker(certificate: Certificate) -> str:
    stated = dict(certificate.subject_attributes)
    name = stated.get(_ORGANIZATION) or stated.get(_COMMON_NAME) or "unnamed"
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _key(certificate: Certificate) -> str:
    key = certificate.key
    return (
        f"rsa{key.key_size}"
        if isinstance(key, rsa.RSAPublicKey)
        else _CURVES.get(key.curve.name, key.curve.name)
    )


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


def _find(roots: Iterable[Root], which: str, directory: Path) -> Root:
    digits = which.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise Failure(
            f"{which} is no file in {directory} and no eight digits of a SHA-256; see `attestd ek-roots list`"
        )
    found = {root.certificate.sha256: root for root in roots if root.certificate.sha256.startswith(digits)}
    if len(found) > 1:
        raise Failure(f"{which} begins {len(found)} fingerprints; give more digits")
    for root in found.values():
        return root
    raise Failure(f"no trusted root begins with {which}; see `attestd ek-roots list`")


def _file_in(directory: Path, which: str) -> Path | None:
    """The store's file of that name, or None; a path counts only where it leads into the store itself."""
    named = Path(which)
    path = directory / named.name
    inside = named.name == which or named.parent.absolute() == directory.absolute()
    return path if inside and named.name and path.name not in (".", "..") and os.path.lexists(path) else None


def _remove_file(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        raise Failure(f"{path} is a directory; remove it yourself")
    path.unlink()
    _sync(path.parent)


def _write(path: Path, certificates: Sequence[Certificate], *, replace: bool = False) -> None:
    """Old content or new, never half; a link at the target is replaced, not followed."""
    if not replace and os.path.lexists(path):
        raise Failure(f"{path} is in the way; remove it or rename it")
    pem = "".join(ssl.DER_cert_to_PEM_cert(one.raw) for one in certificates).encode()
    # A name that begins with a dot: the service does not read it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
