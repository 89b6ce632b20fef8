"""Which key or secret is to be sealed to a machine?

Made here, outside the TPM, so the maker has seen it: nothing of it is kept, printed or logged, and
whoever needs a key that never left a TPM has it born there and certified instead (tpm.verify.certified).
"""

import os
import re
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tpm.errors import PolicyError
from tpm.seal.wrap import sized
from tpm.structures.algorithms import P256, SHA256, TpmAlg
from tpm.structures.attributes import SIGN
from tpm.structures.public import PublicArea, parse_public

SMALLEST_SECRET, LARGEST_SECRET = 16, 128
"""Bytes of a secret-N: below is guessable, above is more than a TPM seals (MAX_SYM_DATA)."""

_NULL = TpmAlg.NULL
_SECRET = re.compile(r"secret-([1-9][0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new object: its public area, and its TPMT_SENSITIVE, which is for `duplicate` alone."""

    public: PublicArea
    sensitive: bytes = field(repr=False)


def mint(kind: str, *, policy_digest: bytes) -> MintedKey:
    """A new object that only `policy_digest` (SHA-256) opens: no password, not even an empty one.

    `kind`: "secret-N" (N random bytes, 16 to 128, for TPM2_Unseal), "ec-p256" (ECDSA with SHA-256),
    "rsa-2048" (scheme chosen at signing), "hmac-sha256". PolicyError "seal_kind" for another. The
    attributes leave userWithAuth clear, and fixedTPM and fixedParent with it, as an import demands (Part
    2, 8.3.3).
    """
    if len(policy_digest) != SHA256.size:
        raise ValueError(f"a policy digest has {SHA256.size} bytes, found {len(policy_digest)}")
    match kind:
        case "ec-p256":
            return _ec_p256(policy_digest)
        case "rsa-2048":
            return _rsa_2048(policy_digest)
        case "hmac-sha256":
            scheme = struct.pack(">HH", TpmAlg.HMAC, SHA256.id)
            return _keyed_hash(SIGN, scheme, os.urandom(SHA256.size), policy_digest)
    secret = _SECRET.fullmatch(kind)
    if secret is not None and SMALLEST_SECRET <= int(secret[1]) <= LARGEST_SECRET:
        return _keyed_hash(0, struct.pack(">H", _NULL), os.urandom(int(secret[1])), policy_digest)
    raise PolicyError(
        "seal_kind",
        f"{kind!r} is not secret-N (N from {SMALLEST_SECRET} to {LARGEST_SECRET}), ec-p256, rsa-2048 or "
        "hmac-sha256.",
    )


def _keyed_hash(attributes: int, scheme: bytes, data: bytes, policy_digest: bytes) -> MintedKey:
    # The seed hides the data behind the published `unique`, which would otherwise confirm a guess.
    seed = os.urandom(SHA256.size)
    unique = sized(SHA256.digest(seed + data))
    public = _public(TpmAlg.KEYEDHASH, attributes, policy_digest, scheme + unique)
    return MintedKey(public, _sensitive(TpmAlg.KEYEDHASH, seed, data))


def _ec_p256(policy_digest: bytes) -> MintedKey:
    numbers = ec.generate_private_key(P256.primitive).private_numbers()
    x, y = (
        sized(value.to_bytes(P256.size)) for value in (numbers.public_numbers.x, numbers.public_numbers.y)
    )
    parameters = struct.pack(">5H", _NULL, TpmAlg.ECDSA, SHA256.id, P256.id, _NULL)
    public = _public(TpmAlg.ECC, SIGN, policy_digest, parameters + x + y)
    return MintedKey(public, _sensitive(TpmAlg.ECC, b"", numbers.private_value.to_bytes(P256.size)))


def _rsa_2048(policy_digest: bytes) -> MintedKey:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    # Exponent 0 is how a TPM writes its default of 65537.
    parameters = struct.pack(">HHHI", _NULL, _NULL, 2048, 0)
    unique = sized(numbers.public_numbers.n.to_bytes(256))
    public = _public(TpmAlg.RSA, SIGN, policy_digest, parameters + unique)
    return MintedKey(public, _sensitive(TpmAlg.RSA, b"", numbers.p.to_bytes(128)))


def _public(kind: int, attributes: int, policy_digest: bytes, rest: bytes) -> PublicArea:
    head = struct.pack(">HHI", kind, SHA256.id, attributes)
    return parse_public(head + sized(policy_digest) + rest)


def _sensitive(kind: int, seed: bytes, secret: bytes) -> bytes:
    """TPMT_SENSITIVE with an empty authValue."""
    return struct.pack(">HH", kind, 0) + sized(seed) + sized(secret)
