"""tpm2-pytss as the oracle of tpm.seal: parents whose private half is known, and what their TPM would do."""

import struct
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tpm2_pytss.constants import TPM2_ALG
from tpm2_pytss.internal import crypto
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPMT_PUBLIC,
    TPMT_SENSITIVE,
)
from tpm2_pytss.utils import unwrap

from tpm.structures.algorithms import hash_by_name
from tpm.structures.public import PublicArea, parse_public

RSA_BITS = {"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096}
CURVES = {"p256": (3, ec.SECP256R1()), "p384": (4, ec.SECP384R1()), "p521": (5, ec.SECP521R1())}
KINDS = [*RSA_BITS, *CURVES]
STORAGE = 0x000300B2


def sized(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


@cache
def _private_key(kind: str, which: int) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """Made once: large RSA keys take seconds."""
    if kind in RSA_BITS:
        return rsa.generate_private_key(65537, RSA_BITS[kind])
    return ec.generate_private_key(CURVES[kind][1])


def public_bytes(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *,
    name_alg: str = "sha256",
    attributes: int = STORAGE,
    cipher: bytes = bytes.fromhex("000600800043"),
) -> bytes:
    """TPMT_PUBLIC of a storage key, scheme NULL, no policy."""
    kind = 0x0001 if isinstance(key, rsa.RSAPrivateKey) else 0x0023
    head = struct.pack(">HHIH", kind, hash_by_name(name_alg).id, attributes, 0) + cipher + b"\x00\x10"
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n.to_bytes(key.key_size // 8)
        return head + struct.pack(">HI", key.key_size, 0) + sized(modulus)
    curve, _ = CURVES["p" + key.curve.name.removeprefix("secp").removesuffix("r1")]
    size = (key.curve.key_size + 7) // 8
    point = key.public_key().public_numbers()
    unique = sized(point.x.to_bytes(size)) + sized(point.y.to_bytes(size))
    return head + struct.pack(">HH", curve, 0x0010) + unique


@dataclass(frozen=True)
class Parent:
    """A storage key that lives here in software, so that a test can do what its TPM would do."""

    public: PublicArea
    sensitive: TPMT_SENSITIVE

    @classmethod
    def make(cls, kind: str, *, name_alg: str = "sha256", cipher_bits: int = 128, which: int = 0) -> "Parent":
        """A parent of this kind; `which` tells several of a kind apart."""
        cipher = struct.pack(">HHH", 0x0006, cipher_bits, 0x0043)
        private = _private_key(kind, which)
        if isinstance(private, rsa.RSAPrivateKey):
            secret = private.private_numbers().p.to_bytes(RSA_BITS[kind] // 16)
            algorithm = TPM2_ALG.RSA
        else:
            secret = private.private_numbers().private_value.to_bytes((private.curve.key_size + 7) // 8)
            algorithm = TPM2_ALG.ECC
        public = parse_public(public_bytes(private, name_alg=name_alg, cipher=cipher))
        sensitive, _ = TPMT_SENSITIVE.unmarshal(struct.pack(">HHH", algorithm, 0, 0) + sized(secret))
        return cls(public, sensitive)

    def recover_seed(self, label: bytes, encrypted: bytes) -> bytes:
        """The seed that the TPM would recover from a TPM2B_ENCRYPTED_SECRET."""
        seed: bytes = crypto._secret_to_seed(
            self.sensitive, oracle_public(self.public), label + b"\0", encrypted[2:]
        )
        return seed

    def activate(self, id_object: bytes, encrypted_secret: bytes, name: bytes) -> bytes:
        """What TPM2_ActivateCredential would release; InvalidSignature or ValueError if it would refuse."""
        area = oracle_public(self.public)
        seed = self.recover_seed(b"IDENTITY", encrypted_secret)
        body = id_object[2:]
        size = int.from_bytes(body[:2])
        integrity, encrypted = body[2 : 2 + size], body[2 + size :]
        halg = crypto._get_digest(area.nameAlg)
        cipher, mode, bits = crypto._symdef_to_crypt(area.parameters.asymDetail.symmetric)
        key = crypto._kdfa(area.nameAlg, seed, b"INTEGRITY", b"", b"", halg.digest_size * 8)
        crypto._check_hmac(halg, key, encrypted, name, integrity)
        plain = crypto._decrypt(
            cipher, mode, crypto._kdfa(area.nameAlg, seed, b"STORAGE", name, b"", bits), encrypted
        )
        assert int.from_bytes(plain[:2]) == len(plain) - 2
        return bytes(plain[2:])

    def import_object(self, public: bytes, duplicate: bytes, encrypted_seed: bytes) -> bytes:
        """The TPMT_SENSITIVE that TPM2_Import would find, its integrity checked."""
        sensitive = unwrap(
            oracle_public(self.public),
            self.sensitive,
            TPM2B_PUBLIC.unmarshal(public)[0],
            TPM2B_PRIVATE.unmarshal(duplicate)[0],
            TPM2B_ENCRYPTED_SECRET.unmarshal(encrypted_seed)[0],
        )
        marshalled: bytes = sensitive.sensitiveArea.marshal()
        return marshalled


def oracle_public(public: PublicArea) -> TPMT_PUBLIC:
    area, used = TPMT_PUBLIC.unmarshal(public.raw)
    assert used == len(public.raw)
    return area
