"""What does the device ask its TPM to create?

TPMT_PUBLIC templates. noDA is set wherever a key is used with its (empty) password, so that a TPM which
someone's wrong passwords have locked still attests.
"""

import os
import struct

from tpm.errors import DeviceError
from tpm.seal.wrap import sized
from tpm.structures.algorithms import CURVES_BY_NAME, SHA256, SHA384, Hash, TpmAlg
from tpm.structures.attributes import (
    AK_ATTRIBUTES,
    CREDENTIAL_KEY_ATTRIBUTES,
    NO_DA,
    STORAGE_KEY_ATTRIBUTES,
)
from tpm.verify.templates import EkTemplate

_NULL = TpmAlg.NULL
_RSA, _ECC = int(TpmAlg.RSA), int(TpmAlg.ECC)
_NO_CIPHER = struct.pack(">H", _NULL)
_AES_128_CFB = struct.pack(">HHH", TpmAlg.AES, 128, TpmAlg.CFB)
_ROTATION_BYTES = 32

# kind: type, scheme, hash, RSA bits or curve
_SCHEMES: dict[str, tuple[int, int, Hash, int | str]] = {
    "p256": (_ECC, TpmAlg.ECDSA, SHA256, "p256"),
    "p384": (_ECC, TpmAlg.ECDSA, SHA384, "p384"),
    "rsa": (_RSA, TpmAlg.RSASSA, SHA256, 2048),
    "rsapss": (_RSA, TpmAlg.RSAPSS, SHA256, 2048),
}


def attestation_key(kind: str) -> bytes:
    """A restricted signing key: "p256", "p384", "rsa" (PKCS #1 v1.5) or "rsapss", always another one.

    A primary key follows from the hierarchy's seed and its template; 32 random bytes in `unique` make it
    new.
    """
    attributes = AK_ATTRIBUTES | NO_DA
    return _signing_key(kind, attributes, os.urandom(_ROTATION_BYTES))


def credential_key(kind: str) -> bytes:
    """An unrestricted signing key for a credential: "p256", "p384" or "rsapss"."""
    return _signing_key(kind, CREDENTIAL_KEY_ATTRIBUTES | NO_DA, b"")


def storage_key(kind: str) -> bytes:
    """The storage root: TCG's template with an empty `unique`, as the format of TSS2 key files presumes
    it.
    """
    match kind:
        case "p256":
            rest = _ecc("p256", _NO_CIPHER, b"", b"")
            return _head(_ECC, SHA256, STORAGE_KEY_ATTRIBUTES, b"") + _AES_128_CFB + rest
        case "rsa":
            rest = _rsa(2048, _NO_CIPHER, b"")
            return _head(_RSA, SHA256, STORAGE_KEY_ATTRIBUTES, b"") + _AES_128_CFB + rest
    raise DeviceError("unknown_kind", f"A storage key is p256 or rsa, not {kind!r}.")


def endorsement_key(template: EkTemplate, nonce: bytes = b"") -> bytes:
    """TCG EK Credential Profile 2.6, annex B; `nonce` is what the maker left in NV for `unique` (B.4.1)."""
    cipher = struct.pack(">HHH", TpmAlg.AES, template.cipher_bits, TpmAlg.CFB)
    low = template.name.startswith("L-")
    if isinstance(template.size, int):
        unique = nonce.ljust(template.size // 8, b"\0") if low else b""
        kind, rest = _RSA, _rsa(template.size, _NO_CIPHER, unique)
    else:
        size = CURVES_BY_NAME[template.size].size
        x, y = (nonce.ljust(size, b"\0"), bytes(size)) if low else (b"", b"")
        kind, rest = _ECC, _ecc(template.size, _NO_CIPHER, x, y)
    return _head(kind, template.name_alg, template.attributes, template.policy) + cipher + rest


def _signing_key(kind: str, attributes: int, unique: bytes) -> bytes:
    if kind not in _SCHEMES:
        raise DeviceError("unknown_kind", f"A signing key is one of {', '.join(_SCHEMES)}, not {kind!r}.")
    type, algorithm, hash, size = _SCHEMES[kind]
    scheme = struct.pack(">HH", algorithm, hash.id)
    rest = _rsa(size, scheme, unique) if isinstance(size, int) else _ecc(size, scheme, unique, b"")
    return _head(type, SHA256, attributes, b"") + _NO_CIPHER + rest


def _head(type: int, name_alg: Hash, attributes: int, policy: bytes) -> bytes:
    return struct.pack(">HHI", type, name_alg.id, attributes) + sized(policy)


def _rsa(bits: int, scheme: bytes, unique: bytes) -> bytes:
    return scheme + struct.pack(">HI", bits, 0) + sized(unique)


def _ecc(curve: str, scheme: bytes, x: bytes, y: bytes) -> bytes:
    return scheme + struct.pack(">HH", CURVES_BY_NAME[curve].id, _NULL) + sized(x) + sized(y)
