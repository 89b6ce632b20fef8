"""Are these credentials what they are called, and whose are they?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509

from scripts.demonstration.claims import claim
from scripts.demonstration.people import published


@dataclass(frozen=True, slots=True)
class Credential:
    """One file, for people; `until` in UTC."""

    file: str
    standard: str
    spiffe_id: str
    until: datetime


def received(directory: Path, agent: str, *, url: str, audience: str) -> tuple[Credential, ...]:
    """The agent's three credentials, each checked under the keys that the service at `url` publishes."""
    bundle, jwks = published(f"{url}/.well-known/spiffe/bundle"), published(f"{url}/.well-known/jwks.json")
    certificate = _certificate(directory, f"{agent}.svid.pem")
    bound, bearer = ((directory / f"{agent}.{suffix}").read_text().strip() for suffix in ("wit.jwt", "jwt"))
    return (
        certificate,
        _token(f"{agent}.wit.jwt", "WIT-SVID", _claims(bound, bundle)),
        _token(f"{agent}.jwt", "JWT-SVID", _claims(bearer, jwks, audience=audience)),
    )


def _certificate(directory: Path, file: str) -> Credential:
    leaf = x509.load_pem_x509_certificate((directory / file).read_bytes())
    authorities = x509.load_pem_x509_certificates((directory / "bundle.pem").read_bytes())
    issuers = [each for each in authorities if each.subject == leaf.issuer]
    claim(len(issuers) == 1, "the X.509-SVID should come from an authority of the bundle")
    leaf.verify_directly_issued_by(issuers[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Credential(file, "X.509-SVID", name, leaf.not_valid_after_utc)


def _claims(token: str, keys: Mapping[str, Any], **expected: Any) -> dict[str, Any]:
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(each for each in keys["keys"] if each.get("kid") == kid)
    claims: dict[str, Any] = jwt.decode(token, jwt.PyJWK(key), algorithms=["ES256"], **expected)
    return claims


def _token(file: str, standard: str, claims: Mapping[str, Any]) -> Credential:
    return Credential(file, standard, claims["sub"], datetime.fromtimestamp(claims["exp"], UTC))
