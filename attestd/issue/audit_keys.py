"""Who signed this audit head? Keys of the use `audit`; a retired one signs no more and is believed for what
it signed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestd.issue.keys import Keys
from tpm.errors import PolicyError

_ECDSA = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class AuditSigner:
    """Signs heads with the audit key that was active when it was made."""

    kid: str
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """ECDSA P-256 with SHA-256, DER: what `openssl dgst -sha256 -verify` takes."""
        return self._key.sign(message, _ECDSA)


@dataclass(frozen=True, slots=True)
class AuditVerifier:
    """Verifies with every audit key that there ever was, as far as its file was kept."""

    keys: Mapping[str, ec.EllipticCurvePublicKey]

    def verify(self, kid: str, message: bytes, signature: bytes) -> bool:
        """False also for a key that is not known here."""
        key = self.keys.get(kid)
        if key is None:
            return False
        try:
            key.verify(signature, message, _ECDSA)
        except InvalidSignature:
            return False
        return True


def audit_signer(keys: Keys) -> AuditSigner:
    """The signer of now; Problem `unavailable` when no audit key is active here."""
    signer = keys.signer("audit")
    if not isinstance(signer.private_key, ec.EllipticCurvePrivateKey):
        raise PolicyError("key_file_name", f"the audit key {signer.kid} is not on P-256")
    return AuditSigner(signer.kid, signer.private_key)


def audit_verifier(keys: Keys) -> AuditVerifier:
    """All audit keys, retired ones too."""
    found = {signer.kid: signer.public for signer in keys.of_use("audit")}
    return AuditVerifier(
        {kid: key for kid, key in found.items() if isinstance(key, ec.EllipticCurvePublicKey)}
    )
