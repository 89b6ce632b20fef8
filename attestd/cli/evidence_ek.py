"""Does this EK certificate hold, and of which TPM does it speak?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from attestd.cli.evidence_files import FILE, answer, read_file
from attestd.cli.failures import Unusable
from attestd.cli.output import json_option
from attestd.clock import now_ms, parse_rfc3339
from tpm.errors import AttestationError, EvidenceError
from tpm.verify.certificate import Certificate, key_name
from tpm.verify.certificate_pem import FILE_LIMIT, read_certificate_file
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement import verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors
from tpm.verify.endorsement_profile import stated_maker

_ROOTS = click.Path(exists=True, path_type=Path)


@click.command("ek")
@click.argument("certificate", metavar="CERT", type=FILE)
@click.option(
    "--chain", "chains", multiple=True, metavar="FILE", type=FILE, help="Authorities above it."
)
@click.option(
    "--roots", metavar="DIR", type=_ROOTS, help="Who is trusted; nobody without it."
)
@click.option("--at", metavar="TIME", help="The time at which it is to be valid, RFC 3339; now without it.")
@json_option
def command(
    certificate: Path, chains: tuple[Path, ...], roots: Path | None, at: str | None, as_json: bool
) -> None:
    """Verify an EK certificate, and say which TPM it speaks of.

    Files are PEM or DER, or as the certificate lies in the TPM, with header and padding.
    """
    now = _time(at)
    raw = read_file(certificate, FILE_LIMIT)
    chain = [read_file(path, FILE_LIMIT) for path in chains]
    anchors, left_out = _anchors(roots)
    leaf: Certificate | None = None
    fault: AttestationError | None = None
    try:
        leaf, *beside = read_certificate_file(raw)
        authorities = [*beside, *(one for file in chain for one in read_certificate_file(file))]
        above = [one.raw for one in _above(leaf, authorities)]
        verify_endorsement(leaf.raw, above, roots=anchors, ek=None, now=now)
    except AttestationError as error:
        fault = error
    told = _told(leaf, fault)
    for name in () if as_json else left_out:
        click.echo(f"attestd: {name} is no certificate and is left out of the roots", err=True)
    answer(told, as_json=as_json, lines=_lines(told, leaf, fault))


def _above(leaf: Certificate, authorities: Sequence[Certificate]) -> list[Certificate]:
    """Those that bear the name of an issuer on the way up: whole collections may be given as a chain."""
    names, found = {leaf.issuer}, list[Certificate]()
    waiting = {one.sha256: one for one in authorities}
    while fitting := [one for one in waiting.values() if one.subject in names]:
        for one in fitting:
            del waiting[one.sha256]
            found.append(one)
            names.add(one.issuer)
    return found


def _anchors(roots: Path | None) -> tuple[TrustAnchors, list[str]]:
    """Every authority in the directory, and the names of the files that are no certificates."""
    if roots is None:
        return TrustAnchors.of([]), []
    paths = sorted(roots.iterdir()) if roots.is_dir() else [roots]
    found, left_out = list[Certificate](), list[str]()
    for path in paths:
        if path.is_dir() or path.name.startswith("."):
            continue
        try:
            found += read_certificate_file(read_file(path, FILE_LIMIT))
        except EvidenceError:
            left_out.append(path.name)
    return TrustAnchors.of(one for one in found if one.is_ca), left_out


def _time(at: str | None) -> datetime:
    try:
        ms = now_ms() if at is None else parse_rfc3339(at)
    except ValueError as error:
        raise Unusable(f"--at: {error}") from None
    return datetime.fromtimestamp(ms / 1000, UTC)


def _told(leaf: Certificate | None, fault: AttestationError | None) -> Mapping[str, Any]:
    """DESIGN's answer: what the certificate says whenever it can be read, also where it does not hold."""
    told: dict[str, Any] = {"valid": fault is None, "reason": None if fault is None else fault.reason}
    if leaf is None:
        return told | dict.fromkeys(("manufacturer", "model", "version", "key", "device_id"))
    maker = stated_maker(leaf)
    return told | {
        "manufacturer": maker.manufacturer,
        "model": maker.model,
        "version": maker.version,
        "key": key_name(leaf.key),
        "device_id": device_identifier(leaf.key),
    }


def _lines(
    told: Mapping[str, Any], leaf: Certificate | None, fault: AttestationError | None
) -> Iterator[str]:
    holds = "The certificate holds." if fault is None else None
    yield holds or f"The certificate does not hold ({told['reason']}): {fault.detail if fault else ''}"
    if leaf is None:
        return
    for name in ("manufacturer", "model", "version", "key", "device_id"):
        yield f"  {name:<14}{told[name] or 'not stated'}"
    yield f"  {'issuer':<14}{leaf.issuer_title}"
    yield f"  {'valid':<14}{leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}"
