"""What can be asked of this authorization server, where, and how do clients authenticate?

Made of the configuration, the policies in force and the published keys; nothing in it is signed, so that
serving it costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from attestd.addresses import join, split_listen
from attestd.config import Config
from attestd.issue.discovery import JWKS_PATH, Document, document, openid_configuration
from attestd.issue.keys import Keys
from attestd.oauth import jose, key_sets
from attestd.oauth.client import assertion, attestation, jwt_svid, mtls, wit
from attestd.oauth.server import AuthorizationServer
from attestd.oauth.token import GRANTS
from attestd.policy.active import ActivePolicies
from attestd.policy.grants import Grant

TOKEN_PATH: Final = "/oauth/token"
INTROSPECTION_PATH: Final = "/oauth/introspect"
REVOCATION_PATH: Final = "/oauth/revoke"
CHALLENGE_PATH: Final = "/oauth/challenge"
SERVER_PATH: Final = "/.well-known/oauth-authorization-server"
OPENID_PATH: Final = "/.well-known/openid-configuration"
RESOURCE_PATH: Final = "/.well-known/oauth-protected-resource"

_ALIASED: Final = {
    "token_endpoint": TOKEN_PATH,
    "introspection_endpoint": INTROSPECTION_PATH,
    "revocation_endpoint": REVOCATION_PATH,
}
_METHODS: Final = (
    assertion.METHOD,
    jwt_svid.METHOD,
    attestation.METHOD,
    attestation.METHOD_DPOP,
    wit.METHOD,
)


def mtls_url(config: Config) -> str | None:
    """The external URL with the mTLS listener's port; None where there is no such listener."""
    if config.tls.mtls_listen is None:
        return None
    parts = urlsplit(config.external_url)
    _, port = split_listen(config.tls.mtls_listen)
    return f"https://{join(parts.hostname or '', port)}{parts.path}"


def server_metadata(config: Config, keys: Keys, policies: ActivePolicies) -> dict[str, Any]:
    """RFC 8414, section 2, with the members of RFC 8705, RFC 9449, RFC 9396 and attestation-based client
    authentication."""
    url, alias = config.external_url, mtls_url(config)
    methods = [*_METHODS, mtls.METHOD] if alias else list(_METHODS)
    told: dict[str, Any] = {
        "issuer": url,
        **{name: url + path for name, path in _ALIASED.items()},
        "challenge_endpoint": url + CHALLENGE_PATH,
        "jwks_uri": url + JWKS_PATH,
        "response_types_supported": [],  # required, and there is no authorization endpoint
        "grant_types_supported": list(GRANTS),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(jose.PROOF_ALGS),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": list(jose.PROOF_ALGS),
        "introspection_endpoint_auth_methods_supported": [
            assertion.METHOD,
            *([mtls.METHOD] if alias else []),
        ],
        "introspection_endpoint_auth_signing_alg_values_supported": list(key_sets.ALGS),
        "dpop_signing_alg_values_supported": list(jose.PROOF_ALGS),
        "client_attestation_signing_alg_values_supported": sorted({one.alg for one in keys.published("jwt")}),
        "client_attestation_pop_signing_alg_values_supported": list(jose.PROOF_ALGS),
        "client_attestation_pop_methods_supported": ["attestation_pop_jwt", "dpop_combined"],
        "tls_client_certificate_bound_access_tokens": alias is not None,
    }
    if alias is not None:
        told["mtls_endpoint_aliases"] = {name: alias + path for name, path in _ALIASED.items()}
    return told | _granted(policies)


def resource_metadata(config: Config) -> dict[str, Any]:
    """RFC 9728, section 2, of this service's own endpoints."""
    return {
        "resource": config.external_url,
        "authorization_servers": [config.external_url],
        "jwks_uri": config.external_url + JWKS_PATH,
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(jose.PROOF_ALGS),
        "tls_client_certificate_bound_access_tokens": config.tls.mtls_listen is not None,
        "resource_name": "attestd",
    }


class Metadata:
    """Keeps the documents of the policies and keys that are in force now."""

    def __init__(self, server: AuthorizationServer) -> None:
        self._service = server.service
        self._kept: tuple[int, Keys, dict[str, Document]] | None = None

    def documents(self) -> Mapping[str, Callable[[int], Document]]:
        """By path, each rendered from the time. Where our URL has a path, RFC 8414, section 3, puts the
        well-known part before it; who looks behind it, as OpenID does, finds the same."""
        suffix = urlsplit(self._service.config.external_url).path
        found: dict[str, Callable[[int], Document]] = {}
        for path in (SERVER_PATH, OPENID_PATH, RESOURCE_PATH):
            for written in {path, path + suffix}:
                found[written] = lambda now, path=path: self._at(now)[path]  # type: ignore[misc]
        return found

    def _at(self, now: int) -> dict[str, Document]:
        service = self._service
        keys, policies = service.keyring.at(now), service.store.read(service.policies.active)
        kept = self._kept
        if kept is not None and kept[0] == policies.generation and kept[1] is keys:
            return kept[2]
        server = server_metadata(service.config, keys, policies)
        openid = openid_configuration(keys, external_url=service.config.external_url)
        made = {
            SERVER_PATH: document(server),
            OPENID_PATH: document(server | openid),
            RESOURCE_PATH: document(resource_metadata(service.config)),
        }
        self._kept = (policies.generation, keys, made)
        return made


def _granted(policies: ActivePolicies) -> dict[str, list[str]]:
    """What the policies in force let anybody ask for; members without values are left out."""
    grants = [grant for document in policies.documents for grant in document.grants]
    told = {
        "scopes_supported": _all(grants, lambda grant: grant.scopes),
        "authorization_details_types_supported": _all(grants, lambda grant: grant.authorization_details),
    }
    return {name: values for name, values in told.items() if values}


def _all(grants: Iterable[Grant], values: Callable[[Grant], Iterable[str]]) -> list[str]:
    return sorted({value for grant in grants for value in values(grant)})
