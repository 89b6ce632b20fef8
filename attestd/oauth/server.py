"""What does every endpoint of the authorization server need, beyond the service?"""

from dataclasses import dataclass, field
from typing import Self

from attestd.oauth.descent import OwnTokens
from attestd.oauth.resource_auth import Resources
from attestd.oauth.subject_issuer import SubjectIssuers
from attestd.service import Service


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """Made once at the start, shared by all requests, and holding no request's state."""

    service: Service
    issuers: SubjectIssuers
    resources: Resources
    tokens: OwnTokens = field(default_factory=OwnTokens)

    @classmethod
    def open(cls, service: Service) -> Self:
        """Reads the configured key files: PolicyError names one that cannot be used."""
        config = service.config
        return cls(service, SubjectIssuers(config.subject_issuers), Resources(config.resources))

    @property
    def issuer(self) -> str:
        """The issuer identifier (RFC 8414, section 2): our external URL."""
        return self.service.config.external_url

    @property
    def trust_domain(self) -> str:
        """The trust domain's own SPIFFE ID, the issuer of the agents' identities."""
        return f"spiffe://{self.service.config.trust_domain}"
