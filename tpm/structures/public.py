"""Which key or object is this, and what is its Name?"""

import struct
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tpm.errors import StructureError
from tpm.structures.algorithms import CURVES_BY_NAME, Hash, TpmAlg, curve_by_id, hash_by_id
from tpm.structures.attributes import KNOWN
from tpm.structures.reader import Reader

DEFAULT_EXPONENT = 65537
PUBLIC_LIMIT = 1024
"""Bytes of a TPMT_PUBLIC: the largest, RSA-4096 with a SHA-512 policy, has 604."""

_ECC_LIMIT = 66
_RSA_LIMIT = 512
_DIGEST_LIMIT = 64
_WHAT = "public area"
_CIPHERS: dict[int, str] = {TpmAlg.AES: "aes", TpmAlg.SM4: "sm4", TpmAlg.CAMELLIA: "camellia"}
_MODES: dict[int, str] = {
    TpmAlg.CTR: "ctr",
    TpmAlg.OFB: "ofb",
    TpmAlg.CBC: "cbc",
    TpmAlg.CFB: "cfb",
    TpmAlg.ECB: "ecb",
}
_RSA_SCHEMES: dict[int, str] = {TpmAlg.RSASSA: "rsassa", TpmAlg.RSAPSS: "rsapss", TpmAlg.OAEP: "oaep"}
_ECC_SCHEMES: dict[int, str] = {TpmAlg.ECDSA: "ecdsa", TpmAlg.ECDH: "ecdh"}
_KDFS: dict[int, str] = {
    TpmAlg.MGF1: "mgf1",
    TpmAlg.KDF1_SP800_56A: "kdf1_sp800_56a",
    TpmAlg.KDF2: "kdf2",
    TpmAlg.KDF1_SP800_108: "kdf1_sp800_108",
}


@dataclass(frozen=True, slots=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT: the cipher with which a parent protects its children. `mode` is None for "any"."""

    alg: str
    bits: int
    mode: str | None


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signing, encryption or key derivation scheme by its TCG name in lower case, with its hash if it has
    one.
    """

    name: str
    hash: Hash | None


@dataclass(frozen=True, slots=True)
class PublicArea:
    """TPMT_PUBLIC (TPM 2.0 Part 2, 12.2.4), with the bytes it came in.

    `key_bits` and `exponent` belong to "rsa" (an exponent of 0 means 65537 and is given so), `curve` and
    `kdf` to "ecc". `unique` is (n,) or (x, y) or one digest, as the bytes stood: TPMs keep or strip leading
    zeros. It is empty in a template. Whether it is a key, and a good one, is not checked: see `public_key`
    and tpm.verify.
    """

    raw: bytes
    type: str
    name_alg: Hash
    attributes: int
    auth_policy: bytes
    symmetric: Symmetric | None
    scheme: Scheme | None
    key_bits: int | None
    exponent: int | None
    curve: str | None
    kdf: Scheme | None
    unique: tuple[bytes, ...]

    @property
    def name(self) -> bytes:
        """nameAlg and the digest of the bytes received (TPM 2.0 Part 1, 16): never of bytes written anew."""
        return self.name_alg.id.to_bytes(2, "big") + self.name_alg.digest(self.raw)

    @property
    def sized(self) -> bytes:
        """TPM2B_PUBLIC."""
        return struct.pack(">H", len(self.raw)) + self.raw

    def public_key(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """The key itself; StructureError "bad_key" when there is none: off its curve, zero, a template, a
        digest.
        """
        if self.type == "rsa":
            return self._rsa_key()
        if self.type == "ecc":
            return self._ecc_key()
        raise StructureError("bad_key", f"An object of type {self.type} has no public key.")

    def _rsa_key(self) -> rsa.RSAPublicKey:
        modulus = int.from_bytes(self.unique[0], "big")
        try:
            return rsa.RSAPublicNumbers(self.exponent or DEFAULT_EXPONENT, modulus).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise StructureError("bad_key", f"The public area holds no usable RSA key: {error}.") from None

    def _ecc_key(self) -> ec.EllipticCurvePublicKey:
        curve = CURVES_BY_NAME[self.curve or ""]
        x, y = self.unique
        if len(x) > curve.size or len(y) > curve.size:
            raise StructureError(
                "bad_key", f"A coordinate is longer than the {curve.size} bytes of {curve.name}."
            )
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve.primitive
        )
        try:
            return numbers.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise StructureError(
                "bad_key", f"The public area holds no point of {curve.name}: {error}."
            ) from None


def parse_sized_public(raw: bytes) -> PublicArea:
    """A TPM2B_PUBLIC, whose size must be exactly that of the TPMT_PUBLIC inside."""
    reader = Reader(raw, "sized public area")
    inner = reader.sized(PUBLIC_LIMIT)
    reader.end()
    return parse_public(inner)


def parse_public(raw: bytes) -> PublicArea:
    """A TPMT_PUBLIC and nothing after it; a reserved attribute bit is StructureError
    "reserved_attributes".
    """
    reader = Reader(raw, _WHAT)
    kind = reader.u16()
    name_alg = hash_by_id(reader.u16())
    attributes = reader.u32()
    if attributes & ~KNOWN:
        raise StructureError(
            "reserved_attributes", f"The attributes 0x{attributes:08x} have reserved bits set."
        )
    auth_policy = reader.sized(_DIGEST_LIMIT)
    if len(auth_policy) not in (0, name_alg.size):
        raise StructureError(
            "bad_policy_size", f"A policy of {len(auth_policy)} bytes is no {name_alg.name} digest."
        )
    common = (name_alg, attributes, auth_policy)
    match kind:
        case TpmAlg.RSA:
            area = _read_rsa(reader, *common)
        case TpmAlg.ECC:
            area = _read_ecc(reader, *common)
        case TpmAlg.KEYEDHASH:
            area = _read_keyedhash(reader, *common)
        case TpmAlg.SYMCIPHER:
            area = _read_symcipher(reader, *common)
        case _:
            raise StructureError("unknown_object", f"Objects of type 0x{kind:04x} do not exist.")
    reader.end()
    return area


def qualified_name(parent: bytes, name: bytes) -> bytes:
    """The qualified Name of an object (TPM 2.0 Part 1, 16.2), with the hash that its own Name names.

    `parent` is the qualified Name of its parent, or the hierarchy's four-byte handle for a primary object.
    """
    return name[:2] + hash_by_id(int.from_bytes(name[:2], "big")).digest(parent + name)


def _read_rsa(reader: Reader, name_alg: Hash, attributes: int, auth_policy: bytes) -> PublicArea:
    symmetric = _read_symmetric(reader)
    scheme = _read_scheme(reader, _RSA_SCHEMES, without_hash={TpmAlg.RSAES: "rsaes"})
    key_bits = reader.u16()
    exponent = reader.u32() or DEFAULT_EXPONENT
    unique = (reader.sized(_RSA_LIMIT),)
    head = (reader.raw, "rsa", name_alg, attributes, auth_policy, symmetric, scheme)
    return PublicArea(*head, key_bits, exponent, None, None, unique)


def _read_ecc(reader: Reader, name_alg: Hash, attributes: int, auth_policy: bytes) -> PublicArea:
    symmetric = _read_symmetric(reader)
    scheme = _read_scheme(reader, _ECC_SCHEMES)
    curve = curve_by_id(reader.u16())
    kdf = _read_scheme(reader, _KDFS)
    unique = (reader.sized(_ECC_LIMIT), reader.sized(_ECC_LIMIT))
    head = (reader.raw, "ecc", name_alg, attributes, auth_policy, symmetric, scheme)
    return PublicArea(*head, None, None, curve.name, kdf, unique)


def _read_keyedhash(reader: Reader, name_alg: Hash, attributes: int, auth_policy: bytes) -> PublicArea:
    scheme = _read_scheme(reader, {TpmAlg.HMAC: "hmac", TpmAlg.XOR: "xor"})
    # XOR obfuscation alone names a derivation function too (TPMS_SCHEME_XOR).
    kdf = _read_scheme(reader, _KDFS) if scheme is not None and scheme.name == "xor" else None
    unique = (reader.sized(_DIGEST_LIMIT),)
    head = (reader.raw, "keyedhash", name_alg, attributes, auth_policy, None, scheme)
    return PublicArea(*head, None, None, None, kdf, unique)


def _read_symcipher(reader: Reader, name_alg: Hash, attributes: int, auth_policy: bytes) -> PublicArea:
    symmetric = _read_symmetric(reader)
    if symmetric is None:
        raise StructureError("bad_symmetric", "A symmetric cipher object names no cipher.")
    unique = (reader.sized(_DIGEST_LIMIT),)
    head = (reader.raw, "symcipher", name_alg, attributes, auth_policy, symmetric, None)
    return PublicArea(*head, None, None, None, None, unique)


def _read_symmetric(reader: Reader) -> Symmetric | None:
    algorithm = reader.u16()
    if algorithm == TpmAlg.NULL:
        return None
    cipher = _CIPHERS.get(algorithm)
    if cipher is None:
        raise StructureError("bad_symmetric", f"Cipher 0x{algorithm:04x} is not AES, SM4 or Camellia.")
    bits, mode = reader.u16(), reader.u16()
    if bits not in (128, 192, 256):
        raise StructureError("bad_symmetric", f"A cipher key of {bits} bits is not of 128, 192 or 256.")
    if mode == TpmAlg.NULL:
        return Symmetric(cipher, bits, None)
    if mode not in _MODES:
        raise StructureError("bad_symmetric", f"Cipher mode 0x{mode:04x} does not exist.")
    return Symmetric(cipher, bits, _MODES[mode])


def _read_scheme(
    reader: Reader, hashed: dict[int, str], *, without_hash: dict[int, str] | None = None
) -> Scheme | None:
    algorithm = reader.u16()
    if algorithm == TpmAlg.NULL:
        return None
    if without_hash and algorithm in without_hash:
        return Scheme(without_hash[algorithm], None)
    if algorithm not in hashed:
        raise StructureError(
            "unknown_scheme", f"Scheme 0x{algorithm:04x} does not fit the object or is not supported."
        )
    return Scheme(hashed[algorithm], hash_by_id(reader.u16()))
