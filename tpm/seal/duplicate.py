"""How does a minted key travel to the one TPM that may use it?

The far side of TPM2_Import (TPM 2.0 Part 1, 23.3): the object in an outer wrapper for its new parent.
There is no inner wrapper; the channel is the caller's.
"""

from dataclasses import dataclass

from tpm.seal.objects import MintedKey
from tpm.seal.wrap import demand_storage_key, encapsulate, outer_wrap, sized
from tpm.structures.public import PublicArea


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The three inputs of TPM2_Import: TPM2B_PUBLIC, TPM2B_PRIVATE, TPM2B_ENCRYPTED_SECRET."""

    public: bytes
    duplicate: bytes
    encrypted_seed: bytes


def duplicate(minted: MintedKey, parent: PublicArea) -> Duplicate:
    """Wrap a minted key for the TPM that holds `parent`, an endorsement or a storage key.

    EvidenceError "parent_attributes" or StructureError "bad_key" when `parent` cannot take it. Not
    checked: that `parent` lives in a TPM; that is what its certificate or its certification says.
    """
    demand_storage_key(parent)
    seed, encrypted_seed = encapsulate(parent, b"DUPLICATE")
    wrapped = outer_wrap(parent, seed, minted.public.name, sized(minted.sensitive))
    return Duplicate(minted.public.sized, sized(wrapped), encrypted_seed)
