"""Does a maker whom we trust vouch that this endorsement key lives in one of its TPMs?

Own path check over single certificates, without the network: EK certificates have critical extensions,
purposes and dates that verifiers for the web refuse, and lack what those demand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from tpm.errors import EvidenceError
from tpm.structures.public import PublicArea
from tpm.verify.certificate import Certificate, PublicKey
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement_path import (
    MAX_CERTIFICATES,
    UNTRUSTED,
    TrustAnchors,
    check_signature_hash,
    find_path,
)
from tpm.verify.endorsement_profile import Maker, check_profile
from tpm.verify.endorsement_strength import check_strength

MAX_CERTIFICATE_SIZE = 16 * 1024
"""Bytes of one certificate."""


@dataclass(frozen=True, slots=True)
class VerifiedEndorsement:
    """A root we trust vouches for this EK. Made by `verify_endorsement` alone.

    `manufacturer`, `model`, `version`: see Maker; all None where the certificate is silent. The digests are
    lower-case hex SHA-256 of the DER. The whole path is valid from `not_before` to `not_after`, both
    included.
    """

    manufacturer: str | None
    model: str | None
    version: str | None
    root_sha256: str
    certificate_sha256: str
    key: PublicKey
    not_before: datetime
    not_after: datetime


def verify_endorsement(
    certificate: bytes,
    chain: Sequence[bytes],
    *,
    roots: TrustAnchors | Sequence[x509.Certificate],
    ek: PublicArea | None,
    now: datetime,
) -> VerifiedEndorsement:
    """What the certificate (DER) says, once it holds; `chain` has intermediates in any order, or none.

    EvidenceError "ek_chain_untrusted" means that the certificate is coherent but nobody whom `roots` trusts
    vouches for it; every other reason is a contradiction (see `contradicts`). Without `ek` the key is not
    compared with one. `now` is timezone-aware. Not checked: revocation (nothing is fetched), and whether `ek`
    is in a TCG template.
    """
    # 1. Not more than a chain needs.
    check_sizes(certificate, chain)
    # 2. It can be read.
    leaf = read_certificate(certificate)
    # 3. It is an EK certificate.
    maker = check_profile(leaf)
    # 4. Its key, and the hash that its issuer signed, are worth believing.
    check_strength(leaf.key, whose="the EK")
    check_signature_hash(leaf)
    # 5. It speaks of this TPM's key.
    if ek is not None and device_identifier(ek.public_key()) != device_identifier(leaf.key):
        raise EvidenceError(
            "ek_key_mismatch", "The EK certificate speaks of another key than the one that was sent."
        )
    # 6. It is valid in time.
    check_validity(leaf, now)
    # 7. A path leads to a root that we trust.
    anchors = roots if isinstance(roots, TrustAnchors) else TrustAnchors.of(roots)
    path = find_path(leaf, [read_certificate(raw) for raw in chain], anchors=anchors, now=now)
    return _verified(maker, path)


def _verified(maker: Maker, path: Sequence[Certificate]) -> VerifiedEndorsement:
    return VerifiedEndorsement(
        manufacturer=maker.manufacturer,
        model=maker.model,
        version=maker.version,
        root_sha256=path[-1].sha256,
        certificate_sha256=path[0].sha256,
        key=path[0].key,
        not_before=max(one.not_before for one in path),
        not_after=min(one.not_after for one in path),
    )


def contradicts(error: EvidenceError) -> bool:
    """Is the certificate at fault, so that no mode may admit the device? False: its maker is unknown."""
    return error.reason != UNTRUSTED


def check_sizes(certificate: bytes, chain: Sequence[bytes]) -> None:
    """EvidenceError "ek_chain_too_long" or "ek_certificate_too_large" for more than a chain needs."""
    count = 1 + len(chain)
    if count > MAX_CERTIFICATES:
        detail = f"{count} certificates were sent; at most {MAX_CERTIFICATES} are read."
        raise EvidenceError("ek_chain_too_long", detail)
    size = max(len(one) for one in (certificate, *chain))
    if size > MAX_CERTIFICATE_SIZE:
        detail = f"A certificate has {size} bytes; at most {MAX_CERTIFICATE_SIZE} are read."
        raise EvidenceError("ek_certificate_too_large", detail)


def check_validity(leaf: Certificate, now: datetime) -> None:
    """EvidenceError "ek_not_yet_valid" or "ek_expired" outside the leaf's own dates."""
    if now < leaf.not_before:
        detail = f"The certificate is valid only from {leaf.not_before:%Y-%m-%d %H:%M} UTC."
        raise EvidenceError("ek_not_yet_valid", detail)
    if now > leaf.not_after:
        detail = f"The certificate was valid until {leaf.not_after:%Y-%m-%d %H:%M} UTC."
        raise EvidenceError("ek_expired", detail)
