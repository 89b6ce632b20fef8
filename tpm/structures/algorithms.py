"""Which number means which algorithm?

Constants of the TPM 2.0 Library (Part 2, revision 1.59; clauses 6.3, 6.4, 6.5.2, 6.9 and 7.4) and the hashes
and curves that this library can compute. A number that is not here is refused wherever it is met.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tpm.errors import StructureError

GENERATED_VALUE = 0xFF544347
"""TPM_GENERATED_VALUE: a restricted key signs bytes that begin so only if the TPM made them."""


class TpmAlg(IntEnum):
    """TPM_ALG_ID."""

    RSA = 0x0001
    TDES = 0x0003
    SHA1 = 0x0004
    HMAC = 0x0005
    AES = 0x0006
    MGF1 = 0x0007
    KEYEDHASH = 0x0008
    XOR = 0x000A
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    SM3_256 = 0x0012
    SM4 = 0x0013
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    ECDAA = 0x001A
    SM2 = 0x001B
    ECSCHNORR = 0x001C
    ECMQV = 0x001D
    KDF1_SP800_56A = 0x0020
    KDF2 = 0x0021
    KDF1_SP800_108 = 0x0022
    ECC = 0x0023
    SYMCIPHER = 0x0025
    CAMELLIA = 0x0026
    CTR = 0x0040
    OFB = 0x0041
    CBC = 0x0042
    CFB = 0x0043
    ECB = 0x0044


class TpmSt(IntEnum):
    """TPM_ST: what an attestation structure attests, and the tickets."""

    ATTEST_NV = 0x8014
    ATTEST_COMMAND_AUDIT = 0x8015
    ATTEST_SESSION_AUDIT = 0x8016
    ATTEST_CERTIFY = 0x8017
    ATTEST_QUOTE = 0x8018
    ATTEST_TIME = 0x8019
    ATTEST_CREATION = 0x801A
    ATTEST_NV_DIGEST = 0x801C
    CREATION = 0x8021
    VERIFIED = 0x8022
    AUTH_SECRET = 0x8023
    HASHCHECK = 0x8024
    AUTH_SIGNED = 0x8025


class TpmRh(IntEnum):
    """TPM_RH: permanent handles. Their Name is the handle itself."""

    OWNER = 0x40000001
    NULL = 0x40000007
    PW = 0x40000009
    LOCKOUT = 0x4000000A
    ENDORSEMENT = 0x4000000B
    PLATFORM = 0x4000000C


class TpmCc(IntEnum):
    """TPM_CC: the commands that policies and devices name."""

    POLICY_NV = 0x149
    CREATE_PRIMARY = 0x131
    ACTIVATE_CREDENTIAL = 0x147
    CERTIFY = 0x148
    CERTIFY_CREATION = 0x14A
    DUPLICATE = 0x14B
    POLICY_SECRET = 0x151
    IMPORT = 0x156
    LOAD = 0x157
    QUOTE = 0x158
    SIGN = 0x15D
    UNSEAL = 0x15E
    POLICY_SIGNED = 0x160
    CONTEXT_LOAD = 0x161
    LOAD_EXTERNAL = 0x167
    MAKE_CREDENTIAL = 0x168
    POLICY_AUTHORIZE = 0x16A
    POLICY_AUTH_VALUE = 0x16B
    POLICY_COMMAND_CODE = 0x16C
    POLICY_COUNTER_TIMER = 0x16D
    POLICY_CP_HASH = 0x16E
    POLICY_LOCALITY = 0x16F
    POLICY_NAME_HASH = 0x170
    POLICY_OR = 0x171
    POLICY_TICKET = 0x172
    READ_PUBLIC = 0x173
    POLICY_PCR = 0x17F
    PCR_EXTEND = 0x182
    POLICY_DUPLICATION_SELECT = 0x188
    POLICY_PASSWORD = 0x18C
    POLICY_NV_WRITTEN = 0x18F
    POLICY_TEMPLATE = 0x190
    POLICY_AUTHORIZE_NV = 0x192


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash that this library computes: its TPM_ALG_ID, our name for it, its size in bytes."""

    id: int
    name: str
    size: int
    primitive: hashes.HashAlgorithm = field(compare=False, repr=False)
    _new: Callable[[bytes], Any] = field(compare=False, repr=False)

    def digest(self, data: bytes) -> bytes:
        digest: bytes = self._new(data).digest()
        return digest


# SHA-1 is here because registers and old names still use it; whoever decides refuses it (tpm.verify).
SHA1 = Hash(TpmAlg.SHA1, "sha1", 20, hashes.SHA1(), hashlib.sha1)
SHA256 = Hash(TpmAlg.SHA256, "sha256", 32, hashes.SHA256(), hashlib.sha256)
SHA384 = Hash(TpmAlg.SHA384, "sha384", 48, hashes.SHA384(), hashlib.sha384)
SHA512 = Hash(TpmAlg.SHA512, "sha512", 64, hashes.SHA512(), hashlib.sha512)

HASHES: dict[int, Hash] = {int(known.id): known for known in (SHA1, SHA256, SHA384, SHA512)}
_BY_NAME: dict[str, Hash] = {known.name: known for known in HASHES.values()}


def hash_by_id(identifier: int) -> Hash:
    """The hash with this TPM_ALG_ID; StructureError "unknown_hash" for every other number."""
    known = HASHES.get(identifier)
    if known is None:
        raise StructureError(
            "unknown_hash", f"Algorithm 0x{identifier:04x} is not SHA-1, SHA-256, SHA-384 or SHA-512."
        )
    return known


def hash_by_name(name: str) -> Hash:
    """The hash called "sha1", "sha256", "sha384" or "sha512"; StructureError "unknown_hash" otherwise."""
    known = _BY_NAME.get(name)
    if known is None:
        raise StructureError("unknown_hash", f"{name!r} is not sha1, sha256, sha384 or sha512.")
    return known


@dataclass(frozen=True, slots=True)
class Curve:
    """A NIST curve: its TPM_ECC_CURVE, our name for it, the bytes of one coordinate."""

    id: int
    name: str
    size: int
    primitive: ec.EllipticCurve = field(compare=False, repr=False)


P256 = Curve(0x0003, "p256", 32, ec.SECP256R1())
P384 = Curve(0x0004, "p384", 48, ec.SECP384R1())
P521 = Curve(0x0005, "p521", 66, ec.SECP521R1())

CURVES: dict[int, Curve] = {curve.id: curve for curve in (P256, P384, P521)}
CURVES_BY_NAME: dict[str, Curve] = {curve.name: curve for curve in CURVES.values()}


def curve_by_id(identifier: int) -> Curve:
    """The curve with this TPM_ECC_CURVE; StructureError "unknown_curve" for BN, SM2, P-192, P-224 and what is
    none.
    """
    known = CURVES.get(identifier)
    if known is None:
        raise StructureError("unknown_curve", f"Curve 0x{identifier:04x} is not P-256, P-384 or P-521.")
    return known
