"""Which key and which signature is this, in whatever form tools leave them?

For evidence that is verified offline: a key as TPM2B_PUBLIC, TPMT_PUBLIC, PEM or certificate; a signature as
TPMT_SIGNATURE or as plain bytes. What is believed of them is not looser for that.
"""

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tpm.errors import EvidenceError, StructureError
from tpm.structures.algorithms import SHA1, SHA256
from tpm.structures.public import PublicArea, parse_public, parse_sized_public
from tpm.structures.signature import Signature, parse_signature
from tpm.verify.certificate_pem import read_certificate_file
from tpm.verify.keys import AttestationKey, bare_attestation_key, check_restricted_key
from tpm.verify.signature import VerifyingKey

_PEM = b"-----BEGIN "
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_SEQUENCE = 0x30


@dataclass(frozen=True, slots=True)
class LooseKey:
    """A public key, and its public area where that came with it."""

    key: VerifyingKey
    public: PublicArea | None

    def accepted(self, signature: Signature) -> AttestationKey:
        """The attestation key; EvidenceError as from `check_restricted_key`, or "hash_not_allowed".

        A key without a public area has no scheme of its own: it is the one that its signature states, which
        must be a good one. That such a key is restricted nobody can see.
        """
        if signature.hash is SHA1:
            raise EvidenceError("hash_not_allowed", "The quote is signed over SHA-1, which is not accepted.")
        if self.public is not None:
            return check_restricted_key(self.public)
        return bare_attestation_key(self.key, signature.scheme, signature.hash)


def read_attestation_key(raw: bytes) -> LooseKey:
    """StructureError "ak_unreadable" where it is none of the forms."""
    try:
        if _PEM in raw:
            return LooseKey(_pem_key(raw), None)
        sized = len(raw) >= 2 and int.from_bytes(raw[:2], "big") == len(raw) - 2
        public = parse_sized_public(raw) if sized else parse_public(raw)
        return LooseKey(public.public_key(), public)
    except StructureError as error:
        raise _unreadable(error.detail) from None


def read_loose_signature(raw: bytes, key: VerifyingKey) -> Signature:
    """A TPMT_SIGNATURE, or plain: PKCS#1 v1.5 or DER of ECDSA, both with SHA-256."""
    if isinstance(key, rsa.RSAPublicKey):
        if len(raw) == (key.key_size + 7) // 8:
            return Signature(raw, "rsassa", SHA256, raw)
    elif raw[:1] == bytes([_SEQUENCE]):
        try:
            r, s = decode_dss_signature(raw)
        except ValueError:
            raise StructureError("bad_signature", "The signature begins like DER and is none.") from None
        return Signature(raw, "ecdsa", SHA256, b"", r, s)
    return parse_signature(raw)


def _pem_key(raw: bytes) -> VerifyingKey:
    if _CERTIFICATE in raw:
        try:
            return read_certificate_file(raw)[0].key
        except EvidenceError as error:
            raise _unreadable(error.detail) from None
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable("its PEM holds no public key") from None
    if not isinstance(key, VerifyingKey):
        raise _unreadable("its PEM holds a key that is neither RSA nor of an elliptic curve")
    return key


def _unreadable(why: str) -> StructureError:
    return StructureError("ak_unreadable", f"The attestation key cannot be read: {why}")
