"""Does the same TPM hold this key, and what may the key do?"""

from dataclasses import dataclass

from tpm.errors import EvidenceError
from tpm.structures.algorithms import SHA1
from tpm.structures.attest import Certification
from tpm.structures.attributes import (
    ADMIN_WITH_POLICY,
    DECRYPT,
    NO_DA,
    RESIDENT,
    RESTRICTED,
    SIGN,
    USER_WITH_AUTH,
    describe_attributes,
)
from tpm.structures.public import PublicArea, Symmetric
from tpm.structures.signature import Signature
from tpm.verify.keys import AttestationKey, check_strength, has_full_length
from tpm.verify.signature import verify_jws_value
from tpm.verify.statement import verify_statement

# How the key's owner authorises its use and whether wrong guesses count is the device's own business.
_FREE = USER_WITH_AUTH | ADMIN_WITH_POLICY | NO_DA
_CREDENTIAL_KEY = RESIDENT | SIGN
_PARENT = RESIDENT | RESTRICTED | DECRYPT
_PARENT_CIPHERS = (Symmetric("aes", 128, "cfb"), Symmetric("aes", 256, "cfb"))
_ALGORITHMS = {
    ("ecdsa", "sha256", "p256"): "ES256",
    ("ecdsa", "sha384", "p384"): "ES384",
    ("rsapss", "sha256", None): "PS256",
}


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key that the quoting TPM holds and never lets go. Comes from `verify_certified_key` alone.

    `role` is "signing", then `alg` is the JWS algorithm that its scheme makes; or "parent", then `alg` is
    None and sealed keys may be wrapped to it.
    """

    public: PublicArea
    name: bytes
    role: str
    alg: str | None


def verify_certified_key(
    certification: Certification,
    signature: Signature,
    public: PublicArea,
    *,
    ak: AttestationKey,
    expected_extra_data: bytes,
    expected_signers: frozenset[bytes] | None,
) -> VerifiedKey:
    """The attestation key certified, for our request, that its TPM holds the key of this public area.

    Errors of `verify_statement`; EvidenceError "name_mismatch", "key_attributes", "key_scheme",
    "parent_attributes" or "weak_key"; StructureError "bad_key". The key's own parent is not looked at:
    fixedTPM and fixedParent of the certified key already say that it stays in this TPM.
    """
    # 1. The same attestation key signed it, for the same request.
    verify_statement(
        certification,
        signature,
        ak=ak,
        expected_extra_data=expected_extra_data,
        expected_signers=expected_signers,
    )
    # 2. It speaks of the public area beside it, whose Name we compute ourselves.
    name = public.name
    if certification.name != name:
        raise EvidenceError(
            "name_mismatch",
            f"The TPM certified {certification.name.hex()}; the public area's Name is {name.hex()}.",
        )
    # 3. The object is a key of one of the two kinds that we use.
    if public.attributes & DECRYPT:
        _check_parent(public)
        role, alg = "parent", None
    else:
        role, alg = "signing", _credential_algorithm(public)
    # 4. It is a key at all, and strong.
    check_strength(public)
    public.public_key()
    return VerifiedKey(public, name, role, alg)


def verify_key_proof(key: VerifiedKey, proof: bytes, *, message: bytes) -> None:
    """`proof` is the JWS signature value of this key over `message`; EvidenceError "bad_proof"."""
    if key.alg is None:
        raise EvidenceError("bad_proof", "A storage key cannot sign; its proof must be left out.")
    try:
        verify_jws_value(key.public.public_key(), key.alg, proof, message)
    except EvidenceError as error:
        raise EvidenceError(
            "bad_proof", f"The key's proof is not its {key.alg} signature: {error.detail}"
        ) from None


def _check_parent(public: PublicArea) -> None:
    """A restricted decryption key that protects children with AES-CFB (TPM 2.0 Part 1, 27.2)."""
    if public.attributes & ~_FREE != _PARENT:
        raise _parent(f"it is {describe_attributes(public.attributes)}, not {describe_attributes(_PARENT)}")
    if public.type not in ("rsa", "ecc"):
        raise _parent(f"it is a {public.type} object, to which nothing can be encrypted")
    if public.name_alg is SHA1:
        raise _parent("its Name is of SHA-1, which would protect its children")
    if public.symmetric not in _PARENT_CIPHERS:
        raise _parent("it does not protect its children with AES-128 or AES-256 in CFB mode")
    if public.scheme is not None or public.kdf is not None:
        raise _parent("it has a scheme, which storage keys have not")
    if not has_full_length(public):
        raise _parent(f"its modulus has not the {public.key_bits} bits that it claims")


def _credential_algorithm(public: PublicArea) -> str:
    """The JWS algorithm of an unrestricted signing key, which follows from its scheme and nothing else."""
    if public.attributes & ~_FREE != _CREDENTIAL_KEY:
        raise _credential(
            f"it is {describe_attributes(public.attributes)}, not {describe_attributes(_CREDENTIAL_KEY)}"
        )
    if public.name_alg is SHA1:
        raise _credential("its Name is of SHA-1")
    if public.symmetric is not None or public.kdf is not None:
        raise _credential("it has a symmetric part or derives keys")
    if not has_full_length(public):
        raise _credential(f"its modulus has not the {public.key_bits} bits that it claims")
    scheme = public.scheme
    hash_name = scheme.hash.name if scheme is not None and scheme.hash is not None else None
    alg = (
        _ALGORITHMS.get((scheme.name, hash_name, public.curve)) if scheme is not None and hash_name else None
    )
    if alg is None:
        raise EvidenceError(
            "key_scheme",
            "A credential key signs as ECDSA on P-256 (SHA-256) or P-384 (SHA-384), or as RSAPSS (SHA-256).",
        )
    return alg


def _parent(what: str) -> EvidenceError:
    return EvidenceError("parent_attributes", f"The object cannot be a parent: {what}.")


def _credential(what: str) -> EvidenceError:
    return EvidenceError("key_attributes", f"The object cannot be a credential key: {what}.")
