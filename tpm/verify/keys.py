"""Is this an attestation key, and by whose name will it sign?"""

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tpm.errors import EvidenceError
from tpm.structures.algorithms import CURVES, SHA256, SHA384, Hash, TpmAlg, TpmRh
from tpm.structures.attributes import (
    AK_ATTRIBUTES,
    DECRYPT,
    NO_DA,
    RESIDENT,
    RESTRICTED,
    SIGN,
    describe_attributes,
)
from tpm.structures.public import DEFAULT_EXPONENT, PublicArea, parse_public, qualified_name
from tpm.verify.endorsement_strength import has_roca_fingerprint
from tpm.verify.signature import VerifyingKey

RSA_SIZES = (2048, 3072, 4096)
HASHES_ALLOWED = (SHA256, SHA384)

_ENDORSEMENT = int(TpmRh.ENDORSEMENT).to_bytes(4, "big")
_SCHEMES = {"rsassa": TpmAlg.RSASSA, "rsapss": TpmAlg.RSAPSS, "ecdsa": TpmAlg.ECDSA}


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A restricted signing key that never leaves its TPM: what it signs and begins with the magic number, a
    TPM made.

    Comes from `accept_attestation_key` alone. That a genuine TPM holds it is for the credential challenge to
    prove.
    """

    public: PublicArea
    name: bytes
    key: VerifyingKey
    scheme: str
    hash: Hash


def accept_attestation_key(public: PublicArea) -> AttestationKey:
    """The key of this public area, loaded once for every later quote.

    EvidenceError "ak_attributes", "ak_scheme" or "weak_key"; StructureError "bad_key" for a point off its
    curve.
    """
    # 1. Its attributes are exactly those of an attestation key.
    if public.attributes & ~NO_DA != AK_ATTRIBUTES:
        raise _attributes(
            f"An attestation key is {describe_attributes(AK_ATTRIBUTES)}; this one is "
            f"{describe_attributes(public.attributes)}."
        )
    # 2. Nothing else but its attributes governs it, and nothing can be stored below it.
    if public.auth_policy:
        raise _attributes("An attestation key has no policy; this one has.")
    if public.name_alg not in HASHES_ALLOWED:
        raise _attributes(f"The Name must be of SHA-256 or SHA-384, not {public.name_alg.name}.")
    if public.symmetric is not None or public.kdf is not None:
        raise _attributes("An attestation key has no symmetric part and derives nothing.")
    # 3. It signs, with one scheme and one good hash.
    scheme = public.scheme
    if scheme is None or scheme.name not in _SCHEMES or scheme.hash not in HASHES_ALLOWED:
        raise EvidenceError(
            "ak_scheme", "An attestation key has the scheme RSASSA, RSAPSS or ECDSA with SHA-256 or SHA-384."
        )
    # 4. It is as long as it says and strong enough.
    if not has_full_length(public):
        raise _attributes(f"The modulus has not the {public.key_bits} bits that the key claims.")
    check_strength(public)
    return AttestationKey(public, public.name, public.public_key(), scheme.name, scheme.hash)


def bare_attestation_key(key: VerifyingKey, scheme: str, hash: Hash) -> AttestationKey:
    """An attestation key of which only the public key is known, as for a PEM file.

    Its Name is that of the plainest attestation key with this public key, which the TPM's own need not be: do
    not demand a qualified signer of it. Size, exponent, scheme and hash are judged as for every attestation
    key.
    """
    algorithm = _SCHEMES.get(scheme)
    if algorithm is None or (algorithm == TpmAlg.ECDSA) != isinstance(key, ec.EllipticCurvePublicKey):
        raise EvidenceError("ak_scheme", f"A key of this type has no scheme {scheme}.")
    kind = TpmAlg.ECC if isinstance(key, ec.EllipticCurvePublicKey) else TpmAlg.RSA
    head = struct.pack(">HHIHHHH", kind, SHA256.id, AK_ATTRIBUTES, 0, TpmAlg.NULL, algorithm, hash.id)
    return accept_attestation_key(parse_public(head + _key_parameters(key)))


def check_restricted_key(public: PublicArea) -> AttestationKey:
    """A key that signs only what its TPM made, whatever else governs it: an IAK, or an AK made elsewhere.

    It may have a policy and other ways to be authorised than the keys that enrol here; residency, scheme,
    hash and strength are judged alike. EvidenceError as from `accept_attestation_key`.
    """
    wanted = RESIDENT | RESTRICTED | SIGN
    if public.attributes & (wanted | DECRYPT) != wanted:
        raise _attributes(
            f"An attestation key is {describe_attributes(wanted)}; this one is "
            f"{describe_attributes(public.attributes)}."
        )
    if public.scheme is None or public.scheme.hash is None:
        raise EvidenceError("ak_scheme", "An attestation key has a scheme with a hash.")
    if not has_full_length(public):
        raise _attributes(f"The modulus has not the {public.key_bits} bits that the key claims.")
    return bare_attestation_key(public.public_key(), public.scheme.name, public.scheme.hash)


def expected_signers(ak: AttestationKey, ek: PublicArea) -> frozenset[bytes]:
    """The two qualified Names under which this key may sign: as a primary of the endorsement hierarchy, or
    below the EK.

    Both hierarchies' counters are not obfuscated, and no other parent is proven to be of the EK's TPM.
    """
    below = qualified_name(qualified_name(_ENDORSEMENT, ek.name), ak.name)
    return frozenset({qualified_name(_ENDORSEMENT, ak.name), below})


def has_full_length(public: PublicArea) -> bool:
    """An RSA modulus has exactly the bits that the public area claims; curves fix theirs."""
    if public.type != "rsa":
        return True
    return int.from_bytes(public.unique[0], "big").bit_length() == public.key_bits


def check_strength(public: PublicArea) -> None:
    """EvidenceError "weak_key" for RSA of another size than 2048, 3072, 4096, another exponent, an even
    modulus, or one that Infineon's broken library made (ROCA): it made TPMs' keys first of all.

    All curves that parse are strong enough.
    """
    if public.type != "rsa":
        return
    if public.key_bits not in RSA_SIZES:
        raise EvidenceError("weak_key", f"An RSA key of {public.key_bits} bits is not of 2048, 3072 or 4096.")
    if public.exponent != DEFAULT_EXPONENT:
        raise EvidenceError("weak_key", f"The RSA exponent is {public.exponent}, not 65537.")
    if not public.unique[0] or not public.unique[0][-1] & 1:
        raise EvidenceError("weak_key", "The RSA modulus is even.")
    if has_roca_fingerprint(int.from_bytes(public.unique[0], "big")):
        raise EvidenceError("weak_key", "The RSA key was made as in CVE-2017-15361 (ROCA) and can be broken.")


def _key_parameters(key: VerifyingKey) -> bytes:
    """What follows the scheme in a TPMT_PUBLIC."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        exponent = 0 if numbers.e == DEFAULT_EXPONENT else min(numbers.e, 0xFFFFFFFF)
        modulus = numbers.n.to_bytes((key.key_size + 7) // 8, "big")
        return struct.pack(">HIH", min(key.key_size, 0xFFFF), exponent, len(modulus)) + modulus
    curve = next((known for known in CURVES.values() if known.primitive.name == key.curve.name), None)
    if curve is None:
        raise EvidenceError("weak_key", f"The curve {key.curve.name} is not P-256, P-384 or P-521.")
    point = key.public_numbers()
    size = struct.pack(">H", curve.size)
    x, y = point.x.to_bytes(curve.size, "big"), point.y.to_bytes(curve.size, "big")
    return struct.pack(">HH", curve.id, TpmAlg.NULL) + size + x + size + y


def _attributes(detail: str) -> EvidenceError:
    return EvidenceError("ak_attributes", detail)
