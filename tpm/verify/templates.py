"""Is this public area an endorsement key as the TCG defines it?

TCG EK Credential Profile 2.6, annex B: a key that follows one of these templates can only decrypt what a
TPM's policy allows, so that a credential encrypted to it proves something. The templates for SM2 (H-5) are
left out: no curve of ours.
"""

from dataclasses import dataclass

from tpm.errors import EvidenceError
from tpm.structures.algorithms import SHA256, SHA384, SHA512, Hash
from tpm.structures.attributes import EK_HIGH_ATTRIBUTES, EK_LOW_ATTRIBUTES, describe_attributes
from tpm.structures.public import PublicArea, Symmetric
from tpm.verify.keys import check_strength, has_full_length

POLICY_A_SHA256 = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(TPM_RH_ENDORSEMENT)."""
POLICY_B_SHA256 = bytes.fromhex("ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0")
"""PolicyOR of policy A and PolicyAuthorizeNV of the index that the profile reserves; so for each hash."""
POLICY_B_SHA384 = bytes.fromhex(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
)
POLICY_B_SHA512 = bytes.fromhex(
    "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4"
    "29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea"
)


@dataclass(frozen=True, slots=True)
class EkTemplate:
    """What an endorsement key of this template has, apart from the key itself."""

    name: str
    type: str
    size: int | str
    attributes: int
    name_alg: Hash
    policy: bytes
    cipher_bits: int


EK_TEMPLATES = (
    EkTemplate("L-1", "rsa", 2048, EK_LOW_ATTRIBUTES, SHA256, POLICY_A_SHA256, 128),
    EkTemplate("L-2", "ecc", "p256", EK_LOW_ATTRIBUTES, SHA256, POLICY_A_SHA256, 128),
    EkTemplate("H-1", "rsa", 2048, EK_HIGH_ATTRIBUTES, SHA256, POLICY_B_SHA256, 128),
    EkTemplate("H-2", "ecc", "p256", EK_HIGH_ATTRIBUTES, SHA256, POLICY_B_SHA256, 128),
    EkTemplate("H-3", "ecc", "p384", EK_HIGH_ATTRIBUTES, SHA384, POLICY_B_SHA384, 256),
    EkTemplate("H-4", "ecc", "p521", EK_HIGH_ATTRIBUTES, SHA512, POLICY_B_SHA512, 256),
    EkTemplate("H-6", "rsa", 3072, EK_HIGH_ATTRIBUTES, SHA384, POLICY_B_SHA384, 256),
    EkTemplate("H-7", "rsa", 4096, EK_HIGH_ATTRIBUTES, SHA384, POLICY_B_SHA384, 256),
)


def match_ek_template(public: PublicArea) -> str:
    """The template's name, "L-1" to "H-7"; EvidenceError "ek_template" when there is none, "weak_key" for a
    bad modulus.

    The key itself is whatever the TPM made and is not compared; that it is the certificate's is checked
    elsewhere.
    """
    for template in EK_TEMPLATES:
        if _follows(public, template) and has_full_length(public):
            check_strength(public)
            return template.name
    raise EvidenceError(
        "ek_template",
        f"No TCG template for endorsement keys is {public.type} {public.key_bits or public.curve or ''} with "
        f"{describe_attributes(public.attributes)}, Name and policy of {public.name_alg.name}.",
    )


def _follows(public: PublicArea, template: EkTemplate) -> bool:
    size = public.key_bits if public.type == "rsa" else public.curve
    return (
        (public.type, size) == (template.type, template.size)
        and public.attributes == template.attributes
        and public.name_alg == template.name_alg
        and public.auth_policy == template.policy
        and public.symmetric == Symmetric("aes", template.cipher_bits, "cfb")
        and public.scheme is None
        and public.kdf is None
    )
