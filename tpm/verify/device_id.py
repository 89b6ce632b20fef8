"""Which machine is this?"""

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def device_identifier(public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    """The device's identifier: lower-case hex SHA-256 of its EK's SubjectPublicKeyInfo in DER.

    The DER is written anew from the key, so that one key has one identifier whatever its certificate looks
    like.
    """
    return hashlib.sha256(
        public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
