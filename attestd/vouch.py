"""Who vouches for this endorsement key: its maker, by a certificate of the TPM's or of the operator's, or
nobody?

A maker whom nobody trusts yet is set aside for the operator to look at; one whom the operator denies is
refused, whoever vouches.
"""

import hashlib
from dataclasses import dataclass

from attestd.protocol import EnrollmentBody
from attestd.service import Service
from attestd.store import quarantine, supplied
from attestd.store.quarantine import QuarantinedMaker
from attestd.wire import Problem
from tpm.errors import EvidenceError
from tpm.structures.public import PublicArea
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.endorsement import VerifiedEndorsement, contradicts
from tpm.verify.endorsement_profile import stated_maker


@dataclass(frozen=True, slots=True)
class Voucher:
    """A certificate (DER) with its chain, and the maker's word where it holds; all empty where there is
    none."""

    certificate: bytes | None
    chain: tuple[bytes, ...]
    endorsement: VerifiedEndorsement | None


def find_voucher(
    service: Service, body: EnrollmentBody, ek: PublicArea, device_id: str, *, now: int
) -> Voucher:
    """Problem `enrollment_refused` where a certificate that was sent contradicts itself or the key, in every
    mode of admission, and where its maker is denied; `malformed` for a chain without a certificate."""
    if body.ek_certificate is None:
        if body.ek_chain:
            raise Problem("malformed", "/ek_chain: a chain needs an ek_certificate.", pointer="/ek_chain")
        voucher = _supplied(service, ek, device_id, now=now)
    else:
        endorsement = _endorsement(service, body.ek_certificate, tuple(body.ek_chain), ek, now=now)
        voucher = Voucher(body.ek_certificate, tuple(body.ek_chain), endorsement)
    _refuse_denied_maker(service, voucher)
    return voucher


def set_aside(service: Service, body: EnrollmentBody, *, now: int) -> None:
    """Keep the certificate of a maker whom nobody trusts, for `attestd ek-roots quarantine`; of each issuer
    the last, and not more often than once a minute."""
    if body.ek_certificate is None:
        return
    leaf = read_certificate(body.ek_certificate)
    issuer = hashlib.sha256(leaf.issuer).hexdigest()
    if not service.store.read(lambda tx: quarantine.is_due(tx, issuer, now)):
        return
    maker = stated_maker(leaf)
    row = QuarantinedMaker(
        issuer_sha256=issuer,
        issuer=leaf.issuer_title,
        manufacturer=maker.manufacturer,
        model=maker.model,
        certificate=body.ek_certificate,
        chain=tuple(body.ek_chain),
        first_at=now,
        last_at=now,
    )
    service.store.write(lambda tx: quarantine.note(tx, row, now))


def _endorsement(
    service: Service, certificate: bytes, chain: tuple[bytes, ...], ek: PublicArea, *, now: int
) -> VerifiedEndorsement | None:
    """The maker's word for this EK; None where nobody whom we trust gives it."""
    try:
        return service.trust.verify(certificate, chain, ek=ek, now_ms=now)
    except EvidenceError as error:
        if not contradicts(error):
            return None
        raise Problem("enrollment_refused", error.detail, cause=error.reason) from None


def _supplied(service: Service, ek: PublicArea, device_id: str, *, now: int) -> Voucher:
    """What the operator has for this TPM. It was judged when it was supplied; one that has ceased to hold
    vouches for nothing, and accuses nobody."""
    found = service.store.read(lambda tx: supplied.find(tx, device_id))
    if found is None:
        return Voucher(None, (), None)
    try:
        endorsement = service.trust.verify(found.certificate, found.chain, ek=ek, now_ms=now)
    except EvidenceError:
        return Voucher(None, (), None)
    return Voucher(found.certificate, found.chain, endorsement)


def _refuse_denied_maker(service: Service, voucher: Voucher) -> None:
    """A certificate that nobody confirms counts here by its own word: who sends it calls itself so."""
    denied = service.config.admission.denied_manufacturers
    if not denied or voucher.certificate is None:
        return
    if voucher.endorsement is not None:
        manufacturer = voucher.endorsement.manufacturer
    else:
        manufacturer = stated_maker(read_certificate(voucher.certificate)).manufacturer
    if manufacturer in denied:
        detail = f"TPMs of {manufacturer} are not admitted here."
        raise Problem("enrollment_refused", detail, cause="vendor_denied")
