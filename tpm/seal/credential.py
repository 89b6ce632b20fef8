"""Does the TPM with this endorsement key also hold the key with this Name?

The credential challenge (TPM 2.0 Part 1, chapter 24): a secret that TPM2_ActivateCredential releases only
where both are loaded.
"""

from dataclasses import dataclass

from tpm.seal.wrap import demand_storage_key, encapsulate, outer_wrap, sized
from tpm.structures.public import PublicArea


@dataclass(frozen=True, slots=True)
class Credential:
    """What is sent: `id_object` is TPM2B_ID_OBJECT, `encrypted_secret` TPM2B_ENCRYPTED_SECRET."""

    id_object: bytes
    encrypted_secret: bytes


def make_credential(ek: PublicArea, name: bytes, secret: bytes) -> Credential:
    """Challenge the TPM of `ek` to prove that it holds the object called `name`.

    `secret` is at most as long as the digest of `ek`'s Name (ValueError); send 32 random bytes.
    EvidenceError "parent_attributes" or StructureError "bad_key" when `ek` cannot take it. Not checked:
    that `ek` is a genuine endorsement key, and that what `name` was computed from is an attestation key.
    """
    demand_storage_key(ek)
    if len(secret) > ek.name_alg.size:
        raise ValueError(f"a secret has at most {ek.name_alg.size} bytes, found {len(secret)}")
    seed, encrypted_secret = encapsulate(ek, b"IDENTITY")
    return Credential(sized(outer_wrap(ek, seed, name, sized(secret))), encrypted_secret)
