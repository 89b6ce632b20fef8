"""How is something wrapped so that one TPM alone can open it?

TPM 2.0 Part 1, chapters 23 and 24 with annexes B.10 and C.6: a seed that only the holder of the key can
recover, and from the seed a cipher key and an integrity key. A credential challenge and a duplicated object
differ in label and content.
"""

import hmac
import os
from functools import lru_cache

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tpm.errors import EvidenceError
from tpm.seal.kdf import kdfa, kdfe
from tpm.structures.algorithms import CURVES_BY_NAME, Hash
from tpm.structures.attributes import DECRYPT, RESTRICTED, SIGN, describe_attributes
from tpm.structures.public import PublicArea, parse_public

_ZERO_IV = CFB(bytes(16))


def demand_storage_key(parent: PublicArea) -> None:
    """Refuse a key under which nothing may be wrapped (EvidenceError "parent_attributes").

    A restricted decryption key that cannot sign, with AES in CFB mode, a Name of SHA-256 or better, and
    RSA of at least 2048 bits or a NIST curve: no weaker than anything that is wrapped under it. Not
    checked: who holds the key.
    """
    role = parent.attributes & (RESTRICTED | DECRYPT | SIGN)
    cipher = parent.symmetric
    wrong = None
    if role != RESTRICTED | DECRYPT:
        wrong = f"is {describe_attributes(parent.attributes)}, not a restricted decryption key"
    elif parent.type == "rsa" and (parent.key_bits or 0) < 2048:
        wrong = f"has {parent.key_bits} bits of RSA; at least 2048 are needed"
    elif parent.type not in ("rsa", "ecc"):
        wrong = f"is a {parent.type} object; RSA or an elliptic curve is needed"
    elif parent.name_alg.size < 32:
        wrong = f"is named by {parent.name_alg.name}; SHA-256 or better is needed"
    elif cipher is None or (cipher.alg, cipher.mode) != ("aes", "cfb"):
        wrong = f"protects with {cipher}; AES in CFB mode is needed"
    if wrong is not None:
        raise EvidenceError("parent_attributes", f"The parent {wrong}.")


def encapsulate(parent: PublicArea, label: bytes) -> tuple[bytes, bytes]:
    """A fresh seed, and the TPM2B_ENCRYPTED_SECRET from which the parent's TPM recovers it under `label`.

    StructureError "bad_key" when `parent` holds no key.
    """
    key, hash = _loaded_key(parent.raw), parent.name_alg
    if isinstance(key, rsa.RSAPublicKey):
        if parent.scheme is not None and parent.scheme.hash is not None:
            hash = parent.scheme.hash  # Of an unrestricted key; a storage key has no scheme.
        seed = os.urandom(hash.size)
        return seed, sized(key.encrypt(seed, oaep(hash, label)))
    curve = CURVES_BY_NAME[parent.curve or ""]
    ephemeral = ec.generate_private_key(curve.primitive)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    x, y = point[1 : 1 + curve.size], point[1 + curve.size :]
    z = ephemeral.exchange(ec.ECDH(), key)
    # Coordinates enter the derivation at the curve's full length, however the TPM wrote them.
    seed = kdfe(hash, z, label, x, parent.unique[0].rjust(curve.size, b"\0"), hash.size * 8)
    return seed, sized(sized(x) + sized(y))


@lru_cache(maxsize=512)
def _loaded_key(raw: bytes) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    # OpenSSL prepares a key at its first use, which costs as much as the use: kept for parents that return.
    return parse_public(raw).public_key()


def oaep(hash: Hash, label: bytes) -> padding.OAEP:
    """The padding of a seed for an RSA key: one hash throughout, the label with its zero (B.4)."""
    return padding.OAEP(padding.MGF1(hash.primitive), hash.primitive, label + b"\0")


def outer_wrap(parent: PublicArea, seed: bytes, name: bytes, plain: bytes) -> bytes:
    """`plain` encrypted and bound to `name` under keys from `seed`: TPM2B integrity, then the cipher
    text.
    """
    if parent.symmetric is None:
        raise EvidenceError("parent_attributes", "The parent names no cipher; AES in CFB mode is needed.")
    hash = parent.name_alg
    cipher_key = kdfa(hash, seed, b"STORAGE", name, b"", parent.symmetric.bits)
    encrypted = Cipher(algorithms.AES(cipher_key), _ZERO_IV).encryptor().update(plain)
    integrity_key = kdfa(hash, seed, b"INTEGRITY", b"", b"", hash.size * 8)
    return sized(hmac.digest(integrity_key, encrypted + name, hash.name)) + encrypted


def sized(content: bytes) -> bytes:
    """TPM2B: the content behind its length."""
    return len(content).to_bytes(2) + content
