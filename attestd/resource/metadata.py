"""How does a client learn which issuer this resource trusts? (RFC 9728)"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from attestd.resource.proof import ALGS
from attestd.resource.uri import origin

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is told of a resource; `audience` is its identifier."""

    audience: str
    issuer: str
    scopes: Sequence[str]
    bearer: bool
    certificates: bool
    name: str | None

    @property
    def path(self) -> str | None:
        """Where the document is: before the path of the identifier (section 3.1). None where the identifier
        is no URL, and there is no document."""
        if urlsplit(self.audience).scheme not in ("https", "http"):
            return None
        return WELL_KNOWN + urlsplit(self.audience).path.rstrip("/")

    @property
    def url(self) -> str | None:
        path = self.path
        return None if path is None else origin(self.audience) + path

    def document(self) -> dict[str, Any]:
        """Members without a value are left out (section 3.2)."""
        told: dict[str, Any] = {
            "resource": self.audience,
            "authorization_servers": [self.issuer],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": list(ALGS),
            "dpop_bound_access_tokens_required": not (self.bearer or self.certificates),
            "tls_client_certificate_bound_access_tokens": self.certificates,
            "scopes_supported": list(self.scopes),
            "resource_name": self.name,
        }
        return {name: value for name, value in told.items() if value}

    def challenges(
        self, *, error: str | None, detail: str, needed: Sequence[str]
    ) -> tuple[tuple[str, str], ...]:
        """`WWW-Authenticate`, one for each scheme (RFC 6750, section 3; RFC 9449, 7.1; RFC 9728, 5.1)."""
        members = {"error": error, "error_description": detail if error else None}
        members |= {"scope": " ".join(needed) or None, "resource_metadata": self.url}
        said = [f'{name}="{value}"' for name, value in members.items() if value]
        dpop = ", ".join([*said, f'algs="{" ".join(ALGS)}"'])
        found = [("WWW-Authenticate", f"DPoP {dpop}")]
        if (self.bearer or self.certificates) and error not in ("invalid_dpop_proof", "use_dpop_nonce"):
            found.append(("WWW-Authenticate", f"Bearer {', '.join(said)}".rstrip()))
        return tuple(found)
