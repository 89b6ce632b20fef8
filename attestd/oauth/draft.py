"""What will the token say, once it is narrowed to its grant and bound to its client's key?"""

from dataclasses import dataclass
from typing import Any

from attestd.issue import access_token
from attestd.issue.access_token import AccessToken
from attestd.issue.signer import Signer
from attestd.issue.statement import Basis
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.errors import OAuthError
from attestd.oauth.grants.asked import Asked
from attestd.oauth.narrowing import (
    Detail,
    act_claim,
    narrow_audience,
    narrow_details,
    narrow_lifetime,
    narrow_scope,
)
from attestd.oauth.posture import live_posture
from attestd.oauth.request import Request
from attestd.service import Service
from attestd.store.canonical import canonical_json
from attestd.store.tokens import Token


@dataclass(frozen=True, slots=True)
class Draft:
    """A token that is granted and not signed yet; comes from `narrow` alone."""

    asked: Asked
    token: Token
    """As it will be kept."""
    details: tuple[Detail, ...]
    confirmation: Confirmation

    @property
    def token_type(self) -> str:
        """`DPoP` for a token that comes with proofs (RFC 9449, section 5); a certificate proves itself."""
        return "DPoP" if self.confirmation.kind == "jkt" else "Bearer"

    def sign(self, signer: Signer, *, issuer: str) -> str:
        """The access token (RFC 9068), which says what it rests on like every credential."""
        client, token = self.asked.client, self.token
        return access_token.issue(
            signer,
            AccessToken(
                issuer=issuer,
                subject=token.subject,
                subject_issuer=token.subject_issuer,
                client_id=token.client_id,
                audience=token.audience,
                token_id=token.token_id,
                basis=Basis(token.attestation_id, client.policy.label, client.device.assurance),
                issued_at=token.issued_at,
                expires_at=token.expires_at,
                scope=token.scope,
                confirmation=self.confirmation.claim(),
                actor=act_claim(self.asked.actors),
                authorization_details=self.details,
            ),
        )


def narrow(service: Service, request: Request, asked: Asked, *, token_id: str) -> Draft:
    """The widest token that was asked for and that both the grant and the parent allow. OAuthError otherwise:
    nothing is left out quietly."""
    client, grant, now = asked.client, asked.client.grant, request.now
    # 1. The device is as it was when it got the credential, which has not ended, and not too long ago.
    posture_until = live_posture(
        service, client.device, client.credential, now=now, max_age=grant.max_posture_age
    )
    # 2. For one audience, and with no more than the grant and the parent say.
    if not grant.audiences:
        detail = "The agent's grant names nobody for whom a token could be."
        raise OAuthError("unauthorized_client", detail, cause="no_audiences")
    audience = narrow_audience(asked.targets, granted=grant.audiences, parent=asked.audiences)
    scope = narrow_scope(request.one("scope"), granted=grant.scopes, parent=asked.scopes)
    wanted = request.one("authorization_details")
    details = narrow_details(wanted, types=grant.authorization_details, parent=asked.details)
    # 3. Not longer than anything that it rests on.
    ends = (now + grant.ttl * 1000, posture_until, asked.until)
    expires_at = narrow_lifetime(now=now, ends=ends)
    # 4. Bound to the key by which the client was known.
    confirmation = _bind(client)
    kept = {
        "token_id": token_id,
        "audience": (audience,),
        "scope": scope,
        "authorization_details": canonical_json(list(details)) if details else None,
        "confirmation": canonical_json(confirmation.claim() or {}),
        "expires_at": expires_at,
        "issued_at": now,
    }
    return Draft(asked, _token(asked, kept), details, confirmation)


def _bind(client: Client) -> Confirmation:
    """A key that was shown to live in a TPM stays the only one that can use the token."""
    grant = client.grant
    if grant.key == "tpm" and not client.resident:
        detail = "The agent's grant needs a key that lives in the TPM."
        raise OAuthError("unauthorized_client", detail, cause="software_key")
    if client.confirmation.kind == "x5t#S256" or client.proven_dpop:
        return client.confirmation
    if not grant.bearer:
        detail = "A DPoP proof is needed: the agent's grant allows no bearer tokens."
        raise OAuthError("invalid_dpop_proof", detail, cause="dpop_missing")
    return Confirmation("none")


def _token(asked: Asked, kept: dict[str, Any]) -> Token:
    client, credential = asked.client, asked.client.credential
    act = act_claim(asked.actors)
    return Token(
        device_id=client.device.device_id,
        client_id=client.client_id,
        agent=client.agent,
        subject=asked.subject,
        subject_issuer=asked.subject_issuer,
        actors=canonical_json(act or {}),
        depth=len(asked.actors),
        credential_id=credential.credential_id,
        attestation_id=client.device.posture_attestation or credential.attestation_id,
        parents=asked.parents,
        reset_count=credential.reset_count,
        restart_count=credential.restart_count,
        root_sha256=client.device.root_sha256,
        policy_name=client.policy.document.name,
        policy_version=client.policy.version,
        **kept,
    )
