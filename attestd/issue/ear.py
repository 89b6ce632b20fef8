"""What do we tell others of a machine that we accepted? An EAT attestation result.

draft-ietf-rats-ear-03 over RFC 9711, trustworthiness claims of AR4SI. Only what was verified is claimed: a
claim that the evidence cannot support is left out, which AR4SI reads as its value 0. An attestation result
authenticates nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from attestd.issue.jwk import base64url
from attestd.issue.jws import sign
from attestd.issue.signer import Signer
from attestd.issue.statement import CLAIM, Basis
from tpm.errors import PolicyError

TYP = "eat+jwt"
PROFILE = "tag:ietf.org,2026:rats/ear#03"

_TIERS = ("none", "affirming", "warning", "contraindicated")
# PC Client Platform Firmware Profile, table 1: firmware, option ROMs and what they started; boot loader.
_BOOT_CODE = frozenset({0, 2, 4})
_SECURE_BOOT_POLICY = 7


@dataclass(frozen=True, slots=True)
class Verifier:
    """Who appraised."""

    issuer: str
    """Our external URL."""
    developer: str
    build: str
    """Program and version."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an accepted attestation has shown, as far as the trustworthiness vector can say it."""

    registers: frozenset[int]
    """The PCRs whose quoted values are among the policy's reference values."""
    keys_in_tpm: bool
    """Every key that this round bound or sealed is resident in this TPM, and there was one."""


@dataclass(frozen=True, slots=True)
class Result:
    """An accepted attestation, to be told."""

    device_id: str
    nonce: bytes
    """The challenge that the quote answered."""
    basis: Basis
    policy_digest: str
    """Lower-case hex SHA-256 of the policy document."""
    facts: Facts


def issue(signer: Signer, result: Result, *, verifier: Verifier, issued_at: int, expires_at: int) -> str:
    """The compact token; times in milliseconds, the end on a whole second."""
    if expires_at // 1000 <= issued_at // 1000:
        raise PolicyError("ttl", "an attestation result ends after it was issued")
    vector = trustworthiness(result.basis, result.facts)
    claims = {
        "iss": verifier.issuer,
        "sub": result.device_id,
        "iat": issued_at // 1000,
        "exp": expires_at // 1000,
        "jti": result.basis.attestation,
        "eat_profile": PROFILE,
        "eat_nonce": base64url(result.nonce),
        "ear_verifier_id": {"developer": verifier.developer, "build": verifier.build},
        "submods": {
            "tpm": {
                "ear_status": status(vector),
                "ear_trustworthiness_vector": vector,
                "ear_appraisal_policy_ids": [result.basis.policy, f"sha256:{result.policy_digest}"],
            }
        },
        CLAIM: result.basis.claim(),
    }
    return sign(signer, typ=TYP, claims=claims)


def trustworthiness(basis: Basis, facts: Facts) -> dict[str, int]:
    """The AR4SI vector of an accepted attestation (draft-ietf-rats-ar4si, section 2.3)."""
    # 2, recognised and trusted: the quote's key is the enrolled device's, which `accepted` implies.
    vector = {"instance-identity": 2}
    # 2, genuine: a maker that the operator trusts vouches for this very TPM. Neither an operator's list nor
    # having been the first says anything of the hardware, and an emulator has none.
    if basis.assurance == "ek_verified":
        vector["hardware"] = 2
    # 2, approved configuration: the Secure Boot policy that was in force is one that the policy's author
    # wrote down.
    if _SECURE_BOOT_POLICY in facts.registers:
        vector["configuration"] = 2
    # 3, approved boot code: firmware, option ROMs and boot loader. Registers say nothing of what ran
    # afterwards, which 2 would.
    if facts.registers >= _BOOT_CODE:
        vector["executables"] = 3
    # 2, secrets under keys that never leave hardware; an emulator's keys can be copied.
    if facts.keys_in_tpm and basis.assurance != "emulated":
        vector["storage-opaque"] = 2
    return vector


def status(vector: Mapping[str, int]) -> str:
    """The tier of the worst claim (EAR, section 3.1: the status is no better than that); `none` when
    nothing is claimed."""
    return max((tier_of(value) for value in vector.values()), key=_TIERS.index, default="none")


def tier_of(value: int) -> str:
    """The tier of one trustworthiness claim, a signed byte (AR4SI, section 2.2); ValueError beyond that."""
    if not -128 <= value <= 127:
        raise ValueError(f"a trustworthiness claim is a signed byte, not {value}")
    if -1 <= value <= 1:
        return "none"
    # Private values mirror the standard ones, one further from zero: -33 begins the tier that 32 begins.
    least = value if value > 0 else -value - 1
    if least < 32:
        return "affirming"
    return "warning" if least < 96 else "contraindicated"
