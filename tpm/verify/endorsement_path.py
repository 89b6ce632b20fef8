"""Is there a path from this certificate to a root that we trust?

Certificates come from the caller alone: URLs in them are never looked at. Each certificate is entered at most
once, so loops and crossed signatures cost no more than one signature check for each pair of certificates.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from tpm.errors import EvidenceError
from tpm.verify.certificate import (
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    KEY_USAGE,
    PURPOSES,
    Certificate,
    is_signed_by,
)
from tpm.verify.certificate_reader import as_certificate
from tpm.verify.endorsement_profile import EK_PURPOSE
from tpm.verify.endorsement_strength import check_strength

MAX_CERTIFICATES = 8
EK_PURPOSES = frozenset({EK_PURPOSE})
UNTRUSTED = "ek_chain_untrusted"

_ANY_PURPOSE = "2.5.29.37.0"
_UNDERSTOOD = frozenset({BASIC_CONSTRAINTS, KEY_USAGE, PURPOSES, CERTIFICATE_POLICIES})
_SIGNATURE_HASHES = frozenset({"sha256", "sha384", "sha512"})  # SHA-1 is left out on purpose.


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The roots that an operator trusts, by subject. Self-signed or not: being here is what makes a root."""

    certificates: tuple[Certificate, ...]
    fingerprint: bytes
    by_subject: Mapping[bytes, tuple[Certificate, ...]] = field(repr=False)

    @classmethod
    def of(cls, certificates: Iterable[Certificate | x509.Certificate]) -> "TrustAnchors":
        """Each certificate once, however often given. What it is worth is checked when a path needs it."""
        read = (one if isinstance(one, Certificate) else as_certificate(one) for one in certificates)
        unique = {one.sha256: one for one in read}
        by_subject: dict[bytes, tuple[Certificate, ...]] = {}
        for one in unique.values():
            by_subject[one.subject] = (*by_subject.get(one.subject, ()), one)
        fingerprint = hashlib.sha256("".join(sorted(unique)).encode()).digest()
        return cls(tuple(unique.values()), fingerprint, by_subject)


def find_path(
    leaf: Certificate,
    intermediates: Sequence[Certificate],
    *,
    anchors: TrustAnchors,
    now: datetime,
    purposes: frozenset[str] = EK_PURPOSES,
) -> tuple[Certificate, ...]:
    """The shortest valid path, leaf first and a trusted root last, of at most eight certificates.

    EvidenceError "ek_chain_untrusted" when nobody we trust has a part in it; another reason when the links
    are there but one of them must not be believed. Authorities that are bound to purposes need one of
    `purposes`. The leaf itself is not checked.
    """
    faults: list[tuple[bool, EvidenceError]] = []
    entered = {leaf.sha256}
    paths: deque[tuple[Certificate, ...]] = deque([(leaf,)])
    # Shortest first: a certificate is entered with the fewest below it, where its path length binds least.
    while paths:
        path = paths.popleft()
        for issuer, trusted in _named_issuers(path[-1], intermediates, anchors):
            if issuer.sha256 in entered or len(path) == MAX_CERTIFICATES:
                continue
            try:
                linked = _is_link(path, issuer, trusted=trusted, now=now, purposes=purposes)
            except EvidenceError as fault:
                faults.append((trusted, fault))
                continue
            if linked and trusted:
                return (*path, issuer)
            if linked:
                entered.add(issuer.sha256)
                paths.append((*path, issuer))
    raise _explain(leaf, faults)


def check_authority(
    certificate: Certificate, *, below: int, now: datetime, purposes: frozenset[str] = EK_PURPOSES
) -> None:
    """EvidenceError unless it may sign for these purposes, `below` authorities above the leaf."""
    # 1. It is a certification authority and not an end entity.
    if certificate.version != 3 or not certificate.is_ca:
        raise _unfit(certificate, "is no certification authority")
    # 2. Its key may sign certificates. An absent key usage forbids nothing (RFC 5280, 6.1.4).
    if certificate.usages is not None and "keyCertSign" not in certificate.usages:
        raise _unfit(certificate, "must not sign certificates (key usage)")
    # 3. Its purposes, if it is bound to any, include the one that is asked for.
    if certificate.purposes is not None and not certificate.purposes & {*purposes, _ANY_PURPOSE}:
        raise _unfit(certificate, f"is bound to other purposes: {', '.join(sorted(certificate.purposes))}")
    # 4. Nothing in it demands to be understood that is not: name and policy constraints too are refused, not
    #    skipped.
    unknown = certificate.critical - _UNDERSTOOD
    if unknown:
        raise _unfit(certificate, f"has the unknown critical extension {min(unknown)}")
    # 5. Not more authorities below it than it allows. One that issued to itself counts too.
    if certificate.path_length is not None and below > certificate.path_length:
        raise _unfit(certificate, f"allows {certificate.path_length} authorities below it; there are {below}")
    # 6. It is valid in time.
    if not certificate.not_before <= now <= certificate.not_after:
        span = f"from {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
        raise EvidenceError("ek_issuer_expired", f"The issuer {certificate.title} is valid {span} only.")


def check_signature_hash(certificate: Certificate) -> None:
    """EvidenceError "ek_weak_signature" when it is signed over SHA-1 or worse, or in an unknown way."""
    if certificate.signature.scheme is None or certificate.signature.hash_name not in _SIGNATURE_HASHES:
        found = certificate.signature.hash_name or "an unknown scheme"
        whose = certificate.title or "the EK"
        detail = f"The certificate of {whose} is signed with {found}; SHA-256 or more is needed."
        raise EvidenceError("ek_weak_signature", detail)


def _named_issuers(
    certificate: Certificate, intermediates: Sequence[Certificate], anchors: TrustAnchors
) -> Iterator[tuple[Certificate, bool]]:
    """Everything that bears the issuer's name, trusted ones first; a name alone proves nothing."""
    trusted = anchors.by_subject.get(certificate.issuer, ())
    known = {one.sha256 for one in trusted}
    yield from ((one, True) for one in trusted)
    yield from (
        (one, False) for one in intermediates if one.subject == certificate.issuer and one.sha256 not in known
    )


def _is_link(
    path: Sequence[Certificate],
    issuer: Certificate,
    *,
    trusted: bool,
    now: datetime,
    purposes: frozenset[str],
) -> bool:
    """Does it continue the path? False where it only shares a name with it; EvidenceError where it lies."""
    # The key's strength comes first: it bounds what the signature check may cost.
    check_strength(issuer.key, whose=issuer.title)
    if not is_signed_by(path[-1], issuer.key):
        _check_no_claim(path[-1], issuer)
        return False
    check_authority(issuer, below=len(path) - 1, now=now, purposes=purposes)
    if not trusted:
        check_signature_hash(issuer)
    return True


def _check_no_claim(child: Certificate, issuer: Certificate) -> None:
    """A wrong signature is a lie if the certificate names this very key, else another's of the same name."""
    if child.issuer_key_identifier is not None and child.issuer_key_identifier == issuer.key_identifier:
        whose = child.title or "the EK"
        raise EvidenceError(
            "ek_signature", f"The certificate of {whose} is not signed by its issuer, {issuer.title}."
        )


def _explain(leaf: Certificate, faults: Sequence[tuple[bool, EvidenceError]]) -> EvidenceError:
    """The fault nearest to being trusted, if links were there; otherwise the maker is not known here."""
    for _, fault in sorted(faults, key=lambda found: not found[0]):
        return fault
    detail = (
        f"No path leads from the EK certificate, which was issued by {leaf.issuer_title}, to a trusted root."
    )
    return EvidenceError(UNTRUSTED, detail)


def _unfit(certificate: Certificate, why: str) -> EvidenceError:
    return EvidenceError("ek_issuer_profile", f"The issuer {certificate.title} {why}.")
