"""Where do relying parties find our keys? JWKS, OpenID discovery and the SPIFFE bundle, ready to send.

The JWKS holds the keys of JWT-SVIDs and attestation results. A WIT's keys are in the bundle alone: it must
not be verifiable by who merely follows a URL (SPIFFE WIT-SVID, section on `iss`; WIMSE workload
credentials, section 5.1.3).
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from attestd.issue import rotation
from attestd.issue.keys import Keys
from attestd.issue.rotation import REFRESH_SECONDS
from attestd.issue.signer import Signer

JWKS_PATH = "/.well-known/jwks.json"
BUNDLE_USES = ("x509", "jwt", "wit")


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document as it is sent."""

    body: bytes
    etag: str
    """Quoted, as it stands in the header; of the body's bytes."""


@dataclass(frozen=True, slots=True)
class Documents:
    """All that is published of one set of keys."""

    jwks: Document
    openid_configuration: Document
    spiffe_bundle: Document


class Discovery:
    """Keeps the documents of the keys that are published now."""

    def __init__(self, external_url: str) -> None:
        self._external_url = external_url
        self._kept: tuple[tuple[Signer, ...], int, Documents] | None = None

    def documents(self, keys: Keys) -> Documents:
        """Made again only when the published keys changed."""
        shown = tuple(signer for use in (*BUNDLE_USES, "ear") for signer in keys.published(use))
        number = rotation.sequence(keys.states, BUNDLE_USES)
        kept = self._kept
        if kept is not None and kept[:2] == (shown, number):
            return kept[2]
        made = Documents(
            jwks=document(jwks(keys)),
            openid_configuration=document(openid_configuration(keys, external_url=self._external_url)),
            spiffe_bundle=document(spiffe_bundle(keys)),
        )
        self._kept = (shown, number, made)
        return made


def jwks(keys: Keys) -> dict[str, Any]:
    """RFC 7517 key set."""
    return {"keys": [_jwk(signer, use="sig") for use in ("jwt", "ear") for signer in keys.published(use)]}


def openid_configuration(keys: Keys, *, external_url: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0, section 3, of an issuer whose tokens are fetched by nobody's browser:
    there is no authorization endpoint to name."""
    return {
        "issuer": external_url,
        "jwks_uri": external_url.rstrip("/") + JWKS_PATH,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({signer.alg for signer in keys.published("jwt")}),
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti"],
    }


def spiffe_bundle(keys: Keys) -> dict[str, Any]:
    """SPIFFE Trust Domain and Bundle, section 4: X.509 authorities by certificate and without `kid`, token
    keys with it."""
    entries = [_authority_jwk(signer) for signer in keys.published("x509")]
    entries += [_jwk(signer, use="jwt-svid") for signer in keys.published("jwt")]
    entries += [_jwk(signer, use="wit-svid") for signer in keys.published("wit")]
    return {
        "spiffe_sequence": rotation.sequence(keys.states, BUNDLE_USES),
        "spiffe_refresh_hint": REFRESH_SECONDS,
        "keys": entries,
    }


def _jwk(signer: Signer, *, use: str) -> dict[str, str]:
    return {**signer.jwk, "use": use, "alg": signer.alg, "kid": signer.kid}


def _authority_jwk(signer: Signer) -> dict[str, Any]:
    if signer.authority is None:
        raise ValueError(f"the key {signer.kid} has no certificate")
    der = signer.authority.certificate.public_bytes(Encoding.DER)
    return {**signer.jwk, "use": "x509-svid", "x5c": [b64encode(der).decode("ascii")]}


def document(value: Mapping[str, Any]) -> Document:
    """As it is sent: compact, with the hash of its bytes as its tag."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Document(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
