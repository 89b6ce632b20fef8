"""How does the operator vouch with a maker's certificate for a TPM that has none in its memory?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from attestd.cli.administration import Administration, administration
from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import config_option
from attestd.config import Config
from attestd.store import devices, supplied
from attestd.store.engine import Transaction
from attestd.store.supplied import SuppliedCertificate
from attestd.trust import read_certificates, read_roots
from tpm.errors import EvidenceError, PolicyError
from tpm.verify.certificate import Certificate
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement import contradicts, verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors

_IDENTIFIER = re.compile(r"[0-9a-f]{64}")
_FILE = click.Path(path_type=Path)


@click.command("certificate")
@config_option
@click.argument("which", metavar="DEVICE")
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--chain", "chains", multiple=True, metavar="FILE", type=_FILE, help="Authorities above it.")
def certificate(config: Config, which: str, file: Path, chains: tuple[Path, ...]) -> None:
    """Supply the EK certificate of a TPM that sends none, as AMD's and Intel's do.

    It counts when the device enrols the next time without one. DEVICE may be the identifier of a machine that
    is yet to come.
    """
    leaf, *above = [one for path in (file, *chains) for one in _read(path)]
    device_id = device_identifier(leaf.key)
    with administration(config) as office:
        said = _judge(config, leaf, above, office.now)
        name = office.change(lambda tx: _keep(office, tx, which, leaf, above))
    click.echo(f"{name}: the certificate is kept for {device_id[:12]}…; {said}")


def keep_certificate(
    office: Administration, tx: Transaction, device_id: str, raw: bytes, chain: Sequence[bytes] = ()
) -> None:
    """In place of an earlier one; whoever calls records it."""
    row = SuppliedCertificate(
        device_id=device_id,
        certificate=raw,
        chain=tuple(chain),
        supplied_by=office.by,
        supplied_at=office.now,
    )
    supplied.put(tx, row)


def _keep(
    office: Administration, tx: Transaction, which: str, leaf: Certificate, above: Sequence[Certificate]
) -> str:
    device_id = device_identifier(leaf.key)
    device = devices.resolve(tx, which)
    if device is None and _IDENTIFIER.fullmatch(which) is None:
        raise Failure(f"there is no device {which}; see attestd device list")
    if device_id != (which if device is None else device.device_id):
        raise Failure(f"this is not the certificate of {which}: it speaks of the key {device_id}")
    keep_certificate(office, tx, device_id, leaf.raw, [one.raw for one in above])
    details = {"certificate_sha256": leaf.sha256, "issuer": leaf.issuer_title}
    office.record(tx, "device certificate", details, device_id=device_id)
    return which if device is None else device.name


def _judge(config: Config, leaf: Certificate, above: Sequence[Certificate], now: int) -> str:
    """What it is worth today; Failure where it will never be worth anything."""
    anchors = TrustAnchors.of(root.certificate for root in read_roots(config.admission.ek_roots))
    moment = datetime.fromtimestamp(now / 1000, UTC)
    try:
        verified = verify_endorsement(
            leaf.raw, [one.raw for one in above], roots=anchors, ek=None, now=moment
        )
    except EvidenceError as error:
        if contradicts(error):
            raise Failure(f"not kept: {error.detail}") from None
        return "no trusted root vouches for it yet: attestd ek-roots import FILE"
    return f"the root of {verified.manufacturer or 'its maker'} vouches for it from the next enrolment on"


def _read(path: Path) -> list[Certificate]:
    try:
        return read_certificates(path)
    except PolicyError as error:
        raise Unusable(error.detail) from None
