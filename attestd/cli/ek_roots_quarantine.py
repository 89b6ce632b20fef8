"""Which makers were refused because nobody trusts them, and how do I trust one?"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

from attestd.cli.administration import administration
from attestd.cli.ek_roots_files import check_free, write_certificates
from attestd.cli.ek_roots_review import Provenance, Review, lines, look_at, person, review_options
from attestd.cli.failures import Failure
from attestd.cli.options import config_option, store_of
from attestd.cli.output import json_option, print_object
from attestd.clock import now_ms, rfc3339
from attestd.config import Config
from attestd.store import quarantine
from attestd.store.engine import Transaction
from attestd.store.quarantine import QuarantinedMaker
from tpm.errors import EvidenceError
from tpm.verify.certificate import Certificate, is_signed_by
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.endorsement import verify_endorsement
from tpm.verify.endorsement_path import TrustAnchors

_ID = re.compile(r"[0-9a-f]{8,64}")
_DIGITS = 16


@click.command("quarantine")
@config_option
@json_option
def list_quarantined(config: Config, as_json: bool) -> None:
    """Print the makers that enrolments named and nobody trusts, the last first.

    Names are what strangers sent; `root` is the SHA-256 of the root that came along, if one did.
    """
    with store_of(config) as store:
        makers = store.read(quarantine.list_all)
    for maker in makers:
        root = root_of(maker, now_ms())
        if as_json:
            print_object(
                {
                    "id": maker.issuer_sha256[:_DIGITS],
                    "issuer": maker.issuer,
                    "manufacturer": maker.manufacturer,
                    "model": maker.model,
                    "times": maker.times,
                    "first_at": rfc3339(maker.first_at),
                    "last_at": rfc3339(maker.last_at),
                    "root": None if root is None else root.sha256,
                }
            )
        else:
            came = "no root came along" if root is None else f"root {root.sha256[:_DIGITS]}"
            what = f"{maker.manufacturer or 'no maker'} {maker.model or ''}".strip()
            click.echo(
                f"{maker.issuer_sha256[:_DIGITS]}  {rfc3339(maker.last_at)}  {maker.times}×  {what}: "
                f"{maker.issuer}  ({came})"
            )


@click.command("trust")
@config_option
@review_options
@click.argument("which", metavar="ID")
def trust(config: Config, which: str, yes: bool, fingerprints: frozenset[str]) -> None:
    """Trust the root of a refused maker, if the refused TPM sent it with its certificate.

    Compare the SHA-256 with what the maker publishes: anyone can make a root of any name.
    """
    now = now_ms()
    with store_of(config) as store:
        maker = _resolve(store.read(quarantine.list_all), which)
    root = root_of(maker, now)
    if root is None:
        detail = f"the TPM of {maker.issuer} sent no root that vouches for it"
        raise Failure(f"{detail}; get it from the maker: attestd ek-roots import FILE")
    source = f"quarantine {maker.issuer_sha256[:_DIGITS]}"
    reviewed = look_at([root], Review(yes, fingerprints), source=source, ask=person())
    if reviewed == "no":
        click.echo("\n".join(lines(root, source)), err=True)
        raise Failure(f"nothing trusted: compare the SHA-256 and name it, --sha256 {root.sha256}")
    path = config.admission.ek_roots / f"{root.sha256[:_DIGITS]}.pem"
    check_free(path)
    with administration(config) as office:

        def record(tx: Transaction) -> None:
            quarantine.remove(tx, maker.issuer_sha256)
            details = {"root_sha256": root.sha256, "subject": root.title, "reviewed": reviewed}
            office.record(tx, "ek-roots trust", details)

        office.change(record)
        note = Provenance(source, office.by, office.now, reviewed).note
    write_certificates(path, [root], note=note)
    click.echo(f"trusted: {root.title}\n  sha256  {root.sha256}\n  file    {path.name}")


def root_of(maker: QuarantinedMaker, now: int) -> Certificate | None:
    """The self-signed authority in the chain that, if it were trusted, would vouch for the certificate."""
    moment = datetime.fromtimestamp(now / 1000, UTC)
    for raw in maker.chain:
        try:
            root = read_certificate(raw)
            if root.subject != root.issuer or not is_signed_by(root, root.key):
                continue
            anchors = TrustAnchors.of([root])
            verify_endorsement(maker.certificate, maker.chain, roots=anchors, ek=None, now=moment)
        except EvidenceError:
            continue
        return root
    return None


def _resolve(makers: list[QuarantinedMaker], which: str) -> QuarantinedMaker:
    digits = which.lower()
    found = [one for one in makers if _ID.fullmatch(digits) and one.issuer_sha256.startswith(digits)]
    if len(found) != 1:
        many = f"{which} begins {len(found)} makers' digits" if found else f"no refused maker is {which}"
        raise Failure(f"{many}; see `attestd ek-roots quarantine`")
    return found[0]
