"""Does an authority whom we trust vouch that this is an attestation key, in this machine?

Three kinds of certificates speak of keys that sign: AK certificates of privacy authorities (purpose
2.23.133.8.3), those that Google gives its cloud machines' AKs (the EK's purpose, or none, and a key
usage that only signs), and the pair of IAK and IDevID that a maker puts into the machine (TCG TPM 2.0 Keys
for Device Identity and Attestation 1.0). The path to the authority is that of EK certificates.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tpm.errors import AttestationError, EvidenceError
from tpm.structures.attest import Certification
from tpm.structures.attributes import RESIDENT, RESTRICTED, SIGN, describe_attributes
from tpm.structures.public import PublicArea
from tpm.structures.signature import Signature
from tpm.verify.attestation_profile import ATTESTATION_PURPOSES, check_signing_profile, device_serial
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.device_id import device_identifier
from tpm.verify.endorsement import check_sizes, check_validity
from tpm.verify.endorsement_path import TrustAnchors, check_signature_hash, find_path
from tpm.verify.endorsement_profile import Maker, stated_maker
from tpm.verify.endorsement_strength import check_strength
from tpm.verify.keys import AttestationKey, accept_attestation_key, check_restricted_key
from tpm.verify.statement import verify_statement


@dataclass(frozen=True, slots=True)
class VerifiedAttestationCertificate:
    """A root we trust vouches for this attestation key. Made by `verify_ak_certificate` alone.

    `maker` is what the certificate says of the TPM, None where it is silent; `serial` is the machine's number
    from a hardwareModuleName, as IAK certificates have it. Digests are lower-case hex SHA-256 of the DER.
    """

    maker: Maker
    serial: bytes | None
    root_sha256: str
    certificate_sha256: str
    key_id: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class IdentityEvidence:
    """What a machine with an IAK and an IDevID sends: their certificates (DER) and public areas, and the
    IAK's certifications of the IDevID and of the attestation key that is to speak for the machine."""

    iak_certificate: bytes
    idevid_certificate: bytes
    chain: Sequence[bytes]
    iak: PublicArea
    idevid: PublicArea
    ak: PublicArea
    idevid_certified: tuple[Certification, Signature]
    ak_certified: tuple[Certification, Signature]


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """One TPM holds IAK, IDevID and AK, and a maker vouches for the machine. Made by `verify_idevid_iak`
    alone. `device_id` is the SHA-256 (hex) of the IDevID's SubjectPublicKeyInfo."""

    device_id: str
    serial: bytes
    ak: AttestationKey
    iak: VerifiedAttestationCertificate


def verify_ak_certificate(
    certificate: bytes, chain: Sequence[bytes], *, roots: TrustAnchors, ak: PublicArea, now: datetime
) -> VerifiedAttestationCertificate:
    """What the certificate (DER) of the attestation key `ak` says, once it holds.

    EvidenceError as from `verify_endorsement`, with "ak_cert_profile", "ak_key_mismatch"; and as from
    `check_restricted_key`. Not checked: that whoever sends it holds the key (a quote shows that), and
    revocation.
    """
    # 1. Not more than a chain needs, and it can be read.
    check_sizes(certificate, chain)
    leaf = read_certificate(certificate)
    # 2. It is the certificate of a key that signs for a TPM.
    check_signing_profile(leaf)
    # 3. Keys and signatures are worth believing.
    check_strength(leaf.key, whose="the attestation key")
    check_signature_hash(leaf)
    # 4. It speaks of this key, which signs nothing but what its TPM made.
    check_restricted_key(ak)
    _check_key(leaf, ak, "ak_key_mismatch")
    # 5. It is valid, and a path leads to a root that we trust.
    check_validity(leaf, now)
    path = _path(leaf, chain, roots, now)
    return VerifiedAttestationCertificate(
        maker=stated_maker(leaf),
        serial=device_serial(leaf),
        root_sha256=path[-1].sha256,
        certificate_sha256=leaf.sha256,
        key_id=device_identifier(leaf.key),
        not_before=max(one.not_before for one in path),
        not_after=min(one.not_after for one in path),
    )


def verify_idevid_iak(
    evidence: IdentityEvidence,
    *,
    roots: TrustAnchors,
    expected_extra_data: bytes,
    expected_serial: bytes | None,
    now: datetime,
) -> VerifiedIdentity:
    """The machine's maker vouches for it, and its TPM for the attestation key, in answer to our request.

    `expected_serial` is the number in the device's record, None where there is none yet. EvidenceError as
    from `verify_ak_certificate`; "iak_binding" where the parts are sound and do not belong together.
    """
    # 1. The maker vouches for the IAK.
    iak = verify_ak_certificate(
        evidence.iak_certificate, evidence.chain, roots=roots, ak=evidence.iak, now=now
    )
    # 2. It vouches for the IDevID too, whose key stays in its TPM.
    idevid = _verify_idevid(evidence, roots, now)
    # 3. Both certificates name one machine, the one that we know.
    serial = device_serial(idevid)
    if serial is None or iak.serial is None:
        raise _unbound("a certificate names no hardware serial number")
    if not hmac.compare_digest(serial, iak.serial):
        raise _unbound("the certificates of IAK and IDevID name different machines")
    if expected_serial is not None and not hmac.compare_digest(serial, expected_serial):
        raise _unbound("the certificates name another machine than the device's record")
    # 4. The TPM of the IAK holds the IDevID and the AK, and says so for this request.
    ak = accept_attestation_key(evidence.ak)
    signer = check_restricted_key(evidence.iak)
    _check_certified(evidence.idevid_certified, evidence.idevid, signer, expected_extra_data, "IDevID")
    _check_certified(evidence.ak_certified, evidence.ak, signer, expected_extra_data, "attestation key")
    return VerifiedIdentity(device_identifier(idevid.key), serial, ak, iak)


def _verify_idevid(evidence: IdentityEvidence, roots: TrustAnchors, now: datetime) -> Certificate:
    check_sizes(evidence.idevid_certificate, evidence.chain)
    idevid = read_certificate(evidence.idevid_certificate)
    check_signing_profile(idevid, identity=True)
    check_strength(idevid.key, whose="the IDevID")
    check_signature_hash(idevid)
    attributes = evidence.idevid.attributes
    if attributes & (RESIDENT | SIGN) != RESIDENT | SIGN or attributes & RESTRICTED:
        raise EvidenceError(
            "idevid_attributes",
            f"An IDevID is a signing key that stays in its TPM; it is {describe_attributes(attributes)}.",
        )
    _check_key(idevid, evidence.idevid, "idevid_key_mismatch")
    check_validity(idevid, now)
    _path(idevid, evidence.chain, roots, now)
    return idevid


def _check_certified(
    certified: tuple[Certification, Signature],
    public: PublicArea,
    signer: AttestationKey,
    expected_extra_data: bytes,
    what: str,
) -> None:
    certification, signature = certified
    try:
        verify_statement(
            certification,
            signature,
            ak=signer,
            expected_extra_data=expected_extra_data,
            expected_signers=None,
        )
    except AttestationError as error:
        raise _unbound(f"the IAK has not certified the {what} for this request: {error.detail}") from None
    if not hmac.compare_digest(certification.name, public.name):
        raise _unbound(f"the IAK certified another key than the {what}")


def _check_key(certificate: Certificate, public: PublicArea, reason: str) -> None:
    if device_identifier(public.public_key()) != device_identifier(certificate.key):
        raise EvidenceError(reason, "The certificate speaks of another key than the one that was sent.")


def _path(
    leaf: Certificate, chain: Sequence[bytes], roots: TrustAnchors, now: datetime
) -> tuple[Certificate, ...]:
    intermediates = [read_certificate(raw) for raw in chain]
    return find_path(leaf, intermediates, anchors=roots, now=now, purposes=ATTESTATION_PURPOSES)


def _unbound(why: str) -> EvidenceError:
    return EvidenceError("iak_binding", f"IAK, IDevID and attestation key do not belong together: {why}.")
