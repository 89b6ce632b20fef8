"""Did this key sign these bytes?

The one place where the exceptions of `cryptography` become ours: whatever goes wrong in there is a signature
that does not hold, never an error that someone could take for success.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tpm.errors import EvidenceError
from tpm.structures.algorithms import HASHES, SHA256, SHA384, Hash
from tpm.structures.signature import Signature

VerifyingKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_FAILURES = (InvalidSignature, UnsupportedAlgorithm, ValueError, OverflowError)
_ECDSA = {known.id: ec.ECDSA(known.primitive) for known in HASHES.values()}
_PKCS1 = padding.PKCS1v15()
# TPMs have used the digest's length and the longest possible one as the length of the salt: either is good.
_PSS = {known.id: padding.PSS(padding.MGF1(known.primitive), padding.PSS.AUTO) for known in HASHES.values()}
_JWS_PSS = padding.PSS(padding.MGF1(SHA256.primitive), padding.PSS.DIGEST_LENGTH)
_JWS_ECDSA = {"ES256": (32, SHA256), "ES384": (48, SHA384)}


def verify_signature(
    key: VerifyingKey, scheme: str, hash: Hash, signature: Signature, message: bytes
) -> None:
    """The signature over `message` holds under `key`, made with the demanded scheme and hash.

    `scheme` and `hash` are the enrolled key's; what the signature says of itself must be the same, for it is
    the sender's word. EvidenceError "scheme_mismatch" or "bad_signature". The strength of key and hash is not
    checked.
    """
    # 1. The signature claims what the key demands.
    if signature.scheme != scheme or signature.hash is not hash:
        raise EvidenceError(
            "scheme_mismatch",
            f"The signature is {signature.scheme} with {signature.hash.name}; "
            f"the key makes {scheme} with {hash.name}.",
        )
    # 2. It holds.
    try:
        if scheme == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(encode_dss_signature(signature.r, signature.s), message, _ECDSA[hash.id])
        elif scheme == "rsassa" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.value, message, _PKCS1, hash.primitive)
        elif scheme == "rsapss" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature.value, message, _PSS[hash.id], hash.primitive)
        else:
            raise EvidenceError("scheme_mismatch", f"The key cannot make {scheme} signatures.")
    except _FAILURES:
        raise EvidenceError("bad_signature", "The signature does not hold under the key.") from None


def verify_jws_value(key: VerifyingKey, alg: str, value: bytes, message: bytes) -> None:
    """A JWS signature value (RFC 7518, 3.4 and 3.5) over `message`; EvidenceError "bad_signature".

    ES256 and ES384 are r and s at full width; PS256 has a salt as long as its hash. That the key is of the
    algorithm's type is checked, that it is of its curve is for whoever chose `alg`.
    """
    try:
        if alg in _JWS_ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            size, hash = _JWS_ECDSA[alg]
            if len(value) != 2 * size:
                raise EvidenceError(
                    "bad_signature", f"An {alg} signature has {2 * size} bytes, not {len(value)}."
                )
            r, s = int.from_bytes(value[:size], "big"), int.from_bytes(value[size:], "big")
            key.verify(encode_dss_signature(r, s), message, _ECDSA[hash.id])
        elif alg == "PS256" and isinstance(key, rsa.RSAPublicKey):
            key.verify(value, message, _JWS_PSS, SHA256.primitive)
        else:
            raise EvidenceError("bad_signature", f"The key cannot make {alg} signatures.")
    except _FAILURES:
        raise EvidenceError("bad_signature", "The signature does not hold under the key.") from None
