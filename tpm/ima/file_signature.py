"""Did one of these keys sign this file?

The extended attribute `security.ima` of a signed file, which the templates ima-sig, ima-sigv2 and ima-modsig
carry: a header (`signature_v2_hdr` of the kernel: type, version, hash, the key's id, the size) and an RSA
(PKCS#1 v1.5) or ECDSA signature over the file's digest (version 2), or over the digest of type, hash and file
digest (version 3, which fs-verity needs). The PKCS#7 signatures of modules (`modsig`) and EVM's are not
verified.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tpm.errors import EvidenceError, StructureError
from tpm.ima.entry import FileDigest
from tpm.structures.algorithms import SHA256, SHA384, SHA512, Hash

FileKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_HEADER = struct.Struct(">BBB4sH")
_FILE, _VERITY = 3, 6
"""EVM_IMA_XATTR_DIGSIG and IMA_VERITY_DIGSIG."""

# The kernel's numbers (include/uapi/linux/hash_info.h). SHA-1 and shorter ones are left out on purpose.
_HASHES: Mapping[int, Hash] = {4: SHA256, 5: SHA384, 6: SHA512}
_MIN_RSA_BITS = 2048
_MIN_EC_BITS = 256
_PEM = re.compile(rb"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----[A-Za-z0-9+/=\s]+-----END \1-----")


@dataclass(frozen=True, slots=True)
class FileKeys:
    """Keys whose signatures on files count, by the kernel's id: the last four bytes of the key's
    identifier.
    """

    by_id: Mapping[bytes, tuple[FileKey, ...]]


def load_file_keys(files: Sequence[bytes]) -> FileKeys:
    """The keys in these PEM files of public keys and certificates, of which only the key counts.

    StructureError "no_key", "bad_key", "weak_key".
    """
    found: dict[bytes, tuple[FileKey, ...]] = {}
    for source in files:
        blocks = [match.group() for match in _PEM.finditer(source)]
        if not blocks:
            raise StructureError("no_key", "There is no PEM block of a PUBLIC KEY or a CERTIFICATE in it.")
        for block in blocks:
            identifier, key = _load(block)
            found[identifier] = (*found.get(identifier, ()), key)
    return FileKeys(MappingProxyType(found))


def verify_file_signature(signature: bytes, *, digest: FileDigest, keys: FileKeys) -> FileKey:
    """The key that signed the file of this digest.

    EvidenceError "file_key_unknown" where no key has the id that the header names; "file_signature" where the
    header is none, is of another digest, or the signature does not hold under the key.
    """
    # 1. The header is one, and says all of what follows.
    if len(signature) < _HEADER.size:
        raise _refused(f"It has {len(signature)} bytes, fewer than its header.")
    kind, version, hash_number, identifier, size = _HEADER.unpack_from(signature)
    value = signature[_HEADER.size :]
    if len(value) != size:
        raise _refused(f"Its header speaks of {size} bytes; {len(value)} follow.")
    # 2. One of our keys may have made it.
    known = keys.by_id.get(identifier)
    if known is None:
        raise EvidenceError(
            "file_key_unknown", f"The file is signed by key {identifier.hex()}, which is not ours."
        )
    # 3. It is of this kind of digest, and of this hash.
    signed_hash = _HASHES.get(hash_number)
    expected_kind = _VERITY if digest.kind == "verity" else _FILE
    if kind != expected_kind or signed_hash is None or digest.algorithm != signed_hash.name:
        raise _refused(
            f"It is of type {kind} and hash {hash_number}; the file's digest is {digest.algorithm}."
        )
    if len(digest.digest) != signed_hash.size:
        raise _refused(f"The file's digest has {len(digest.digest)} bytes.")
    # 4. It holds under one of them.
    message = _signed(digest, version, bytes((kind, hash_number)), signed_hash)
    for key in known:
        if _holds(key, value, message, signed_hash):
            return key
    raise _refused(f"Key {identifier.hex()} did not make it.")


def _signed(digest: FileDigest, version: int, head: bytes, made_with: Hash) -> bytes:
    match version:
        case 2 if digest.kind == "ima":
            return digest.digest
        case 3:
            return made_with.digest(head + digest.digest)
        case _:
            raise _refused(f"Version {version} is none of a {digest.kind} digest.")


def _holds(key: FileKey, value: bytes, message: bytes, made_with: Hash) -> bool:
    prehashed = Prehashed(made_with.primitive)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(value, message, padding.PKCS1v15(), prehashed)
        else:
            key.verify(value, message, ec.ECDSA(prehashed))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _load(block: bytes) -> tuple[bytes, FileKey]:
    """The id by which the kernel and evmctl know the key, and the key."""
    identifier: bytes | None = None
    key: object
    try:
        if block.startswith(b"-----BEGIN CERTIFICATE"):
            certificate = x509.load_pem_x509_certificate(block)
            key = certificate.public_key()
            identifier = _identifier_of(certificate)
        else:
            key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StructureError("bad_key", f"A key in it cannot be read: {error}.") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise StructureError("bad_key", "A key in it is neither RSA nor of an elliptic curve.")
    minimum = _MIN_RSA_BITS if isinstance(key, rsa.RSAPublicKey) else _MIN_EC_BITS
    if key.key_size < minimum:
        raise StructureError(
            "weak_key", f"A key in it has {key.key_size} bits; use one of at least {minimum}."
        )
    computed = x509.SubjectKeyIdentifier.from_public_key(key).digest
    return (identifier or computed)[-4:], key


def _identifier_of(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _refused(detail: str) -> EvidenceError:
    return EvidenceError("file_signature", f"The file's signature does not hold. {detail}")
