"""Which credentials and sealed keys leave for an accepted machine? Signs what was entitled, and decides
nothing."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from attestd.clock import rfc3339
from attestd.grant import EntitledCredential, EntitledSeal, Entitlement
from attestd.issue import client_attestation, ear, jwt_svid, wit, x509_svid
from attestd.issue.authority import serial_number
from attestd.issue.jwk import BoundKey
from attestd.issue.keys import Keys
from attestd.issue.lifetime import expiry
from attestd.issue.signer import Signer
from attestd.issue.statement import Basis, Statement, token_id
from attestd.policy.document import Policy
from attestd.round.case import Case
from attestd.round.judge import Judgement
from attestd.service import Service
from attestd.wire import b64encode
from tpm.seal.duplicate import Duplicate, duplicate
from tpm.seal.objects import mint as mint_object
from tpm.seal.policy import policy_pcr, start
from tpm.structures.algorithms import SHA256
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.structures.public import parse_sized_public
from tpm.verify.pcrs import VerifiedPcrs

SIGNING_USES = {"x509-svid": "x509", "wit-svid": "wit", "jwt-svid": "jwt", "client-attestation": "jwt"}
"""Which of our keys signs a format. Kinds of tokens that share a key are told apart by their `typ`."""

POSTURE_TTL = 600
"""Seconds that an accepted posture is good for where the policy grants no credential that would say it."""


@dataclass(frozen=True, slots=True)
class MintedCredential:
    """One signed credential; `credential_id` is the serial number in hex, or the `jti`."""

    credential_id: str
    format: str
    agent: str
    spiffe_id: str
    text: str
    expires_at: int
    kid: str
    key: BoundKey | None
    resident: bool
    """The key is proven to live in the device's TPM."""

    def told(self) -> dict[str, Any]:
        """The member of the answer."""
        member = "certificate_chain" if self.format == "x509-svid" else "token"
        return {
            "format": self.format,
            "spiffe_id": self.spiffe_id,
            "agent": self.agent,
            member: self.text,
            "expires_at": rfc3339(self.expires_at),
        }


@dataclass(frozen=True, slots=True)
class MintedSeal:
    """One sealed key. The secret itself exists only inside `duplicate`, encrypted to the parent."""

    name: str
    kind: str
    parent: str
    duplicate: Duplicate = field(repr=False)
    bank: str
    pcrs: tuple[int, ...]
    policy_digest: bytes

    def told(self, version: int) -> dict[str, Any]:
        """The member of the answer."""
        return {
            "name": self.name,
            "version": version,
            "public": b64encode(self.duplicate.public),
            "duplicate": b64encode(self.duplicate.duplicate),
            "encrypted_seed": b64encode(self.duplicate.encrypted_seed),
            "parent": "ek" if self.parent == "ek" else {"name": self.parent},
            "policy": {
                "type": "pcr",
                "selection": {self.bank: list(self.pcrs)},
                "digest": self.policy_digest.hex(),
            },
        }

    @property
    def public_name(self) -> str:
        """The Name of the sealed object, hex."""
        return parse_sized_public(self.duplicate.public).name.hex()


@dataclass(frozen=True, slots=True)
class Minted:
    """Everything that one accepted attestation gives, and until when the posture stands."""

    result: str
    result_kid: str
    credentials: tuple[MintedCredential, ...]
    sealed_keys: tuple[MintedSeal, ...]
    posture_until: int
    renew_after: int


def mint(service: Service, case: Case, judgement: Judgement, entitlement: Entitlement, *, now: int) -> Minted:
    """Sign and seal all of it. Raises rather than give less than was entitled."""
    keys = service.keyring.at(now)
    policy = judgement.policy
    basis = Basis(case.attestation_id, policy.label, case.device.assurance)
    until = _posture_until(policy.document, now)
    credentials = tuple(
        _credential(service, keys, wanted, basis, now=now, until=until) for wanted in entitlement.credentials
    )
    assert judgement.pcrs is not None
    sealed = tuple(_seal(wanted, judgement.pcrs) for wanted in entitlement.seals)
    signer = keys.signer("ear")
    result = ear.issue(
        signer,
        _result(case, judgement, basis, entitlement),
        verifier=service.verifier,
        issued_at=now,
        expires_at=until,
    )
    ends = min((credential.expires_at for credential in credentials), default=until)
    return Minted(result, signer.kid, credentials, sealed, until, now + (ends - now) // 2)


def _posture_until(policy: Policy, now: int) -> int:
    """An accepted posture is good for as long as the longest credential that the policy gives for it."""
    return expiry(now=now, ttl=max((grant.ttl for grant in policy.grants), default=POSTURE_TTL))


def _credential(
    service: Service, keys: Keys, wanted: EntitledCredential, basis: Basis, *, now: int, until: int
) -> MintedCredential:
    signer = keys.signer(SIGNING_USES[wanted.format])
    issuer_until = None if signer.authority is None else signer.authority.not_after
    ends = expiry(now=now, ttl=wanted.grant.ttl, posture_until=until, issuer_until=issuer_until)
    statement = Statement(wanted.spiffe_id, basis, now, ends)
    if wanted.format == "x509-svid":
        number = serial_number(secrets.token_bytes(20))
        svid = x509_svid.issue(signer, statement, key=_bound(wanted), serial=number)
        identifier, text = f"{number:040x}", svid.certificate_chain
    else:
        identifier = token_id(secrets.token_bytes(16))
        text = _token(signer, statement, wanted, issuer=service.config.external_url, jti=identifier)
    return MintedCredential(
        identifier,
        wanted.format,
        wanted.grant.agent,
        wanted.spiffe_id,
        text,
        ends,
        signer.kid,
        wanted.key,
        wanted.resident,
    )


def _token(signer: Signer, statement: Statement, wanted: EntitledCredential, *, issuer: str, jti: str) -> str:
    match wanted.format:
        case "wit-svid":
            return wit.issue(signer, statement, key=_bound(wanted), jti=jti)
        case "client-attestation":
            return client_attestation.issue(signer, statement, issuer=issuer, key=_bound(wanted), jti=jti)
        case "jwt-svid":
            return jwt_svid.issue(signer, statement, issuer=issuer, audience=wanted.audience, jti=jti)
    raise ValueError(f"no credential has the format {wanted.format}")


def _bound(wanted: EntitledCredential) -> BoundKey:
    assert wanted.key is not None
    return wanted.key


def _seal(wanted: EntitledSeal, pcrs: VerifiedPcrs) -> MintedSeal:
    """Sealed to the values that were quoted: what the registers hold by now is the device's to prove when it
    opens."""
    selection = PcrSelection.of(pcrs.bank, wanted.seal.pcrs)
    values = pcr_digest(selection, {pcrs.bank: pcrs.values}, SHA256)
    digest = policy_pcr(start(SHA256), SHA256, selection, values)
    wrapped = duplicate(mint_object(wanted.seal.kind, policy_digest=digest), wanted.parent)
    seal = wanted.seal
    return MintedSeal(seal.name, seal.kind, wanted.parent_name, wrapped, pcrs.bank, seal.pcrs, digest)


def _result(case: Case, judgement: Judgement, basis: Basis, entitlement: Entitlement) -> ear.Result:
    policy = judgement.policy.document
    resident = all(credential.resident for credential in entitlement.credentials)
    some = bool(entitlement.credentials or entitlement.seals)
    return ear.Result(
        device_id=case.device.device_id,
        nonce=case.claim.request.nonce,
        basis=basis,
        policy_digest=policy.digest,
        facts=ear.Facts(frozenset(policy.pcrs), keys_in_tpm=resident and some),
    )
