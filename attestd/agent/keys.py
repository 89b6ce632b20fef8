"""Which key is a credential bound to: one that never leaves the TPM, or one in a file?"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tpm.device.device import Device
from tpm.device.key_file import encode_key_file
from tpm.device.keys import KeyBlob
from tpm.errors import DeviceError


@dataclass(frozen=True, slots=True)
class CredentialKey:
    """A P-256 key. `told` is how the request names it; `blob` is there for one in the TPM; `file` is what is
    kept of it."""

    told: Mapping[str, Any]
    blob: KeyBlob | None
    suffix: str
    file: bytes = field(repr=False)


def make_key(device: Device, kind: str) -> CredentialKey:
    """A fresh key: "tpm" for one born in the TPM, "software" for one in a file."""
    match kind:
        case "tpm":
            blob = device.create_key("p256")
            told = {"name": blob.area.name.hex()}
            return CredentialKey(told, blob, "key.tss", encode_key_file(blob).encode())
        case "software":
            private = ec.generate_private_key(ec.SECP256R1())
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            told = {"alg": "ES256", **members_of(private.public_key())}
            return CredentialKey(told, None, "key.pem", pem)
    raise DeviceError("unknown_kind", f'A key is "tpm" or "software", not {kind!r}.')


def public_members(key: CredentialKey) -> dict[str, str]:
    """The public half, with exactly the members of its type."""
    return members_of(_private(key).public_key()) if key.blob is None else public_jwk(key.blob)


def private_der(key: CredentialKey) -> bytes | None:
    """PKCS#8 of a key in a file; None for one that stays in the TPM."""
    if key.blob is not None:
        return None
    return _private(key).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def private_jwk(key: CredentialKey) -> str | None:
    """The same as a JWK (JSON)."""
    if key.blob is not None:
        return None
    private = _private(key)
    secret = _coordinate(private.private_numbers().private_value)
    return json.dumps(
        {**members_of(private.public_key()), "d": secret, "alg": "ES256"}, separators=(",", ":")
    )


def _private(key: CredentialKey) -> ec.EllipticCurvePrivateKey:
    private = load_pem_private_key(key.file, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private


def public_jwk(blob: KeyBlob) -> dict[str, str]:
    """The public half of a P-256 key in the TPM, with exactly the members of its type."""
    public = blob.area.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or blob.area.curve != "p256":
        raise DeviceError("unknown_kind", "A credential's key in the TPM is on the curve P-256.")
    return members_of(public)


def members_of(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """A JWK's members (RFC 7518, section 6.2.1), without what says how it is used."""
    point = public.public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _coordinate(point.x), "y": _coordinate(point.y)}


def _coordinate(value: int) -> str:
    return urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
