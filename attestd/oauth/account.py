"""What does the audit say of a request to the authorization server?

Who it was, on whose behalf, under which posture and policy, and what came of it; never a token. What a client
has proven stands on its device's chain, what nobody proved is counted on the service's.
"""

from collections.abc import Mapping
from typing import Any, Final

from attestd.oauth.client.client import Client
from attestd.oauth.errors import OAuthError
from attestd.oauth.grants.asked import Asked
from attestd.oauth.request import Request
from attestd.service import Service
from attestd.store import audit, nonces
from attestd.store.audit import AuditEvent, Event
from attestd.store.engine import Transaction
from attestd.store.tokens import Token

MOST_TARGETS: Final = 8
MOST_TEXT: Final = 512
"""How much of what was asked for, and not given, is kept."""


def granted_event(client: Client, request: Request, token: Token, *, grant_type: str) -> AuditEvent:
    """One record for one token."""
    details = {
        "grant_type": grant_type,
        "token_id": token.token_id,
        "subject": token.subject,
        "subject_issuer": token.subject_issuer,
        "actors": token.actors,
        "audience": list(token.audience),
        "scope": token.scope,
        "authorization_details": token.authorization_details,
        "confirmation": token.confirmation,
        "parents": list(token.parents),
        "expires_at": token.expires_at,
    }
    return client_event(client, request, details)


def refused_event(
    client: Client, request: Request, error: OAuthError, asked: Asked | None, *, grant_type: str
) -> AuditEvent:
    """One record for one token that was not given: for whom it was wanted, and on whose behalf as far as that
    was proven (`asked`)."""
    wanted = (*request.many("resource"), *request.many("audience"))
    details = {
        "grant_type": grant_type,
        "audience": [_cut(target) for target in wanted[:MOST_TARGETS]],
        "scope": _cut(request.one("scope") or ""),
        "subject": None if asked is None else asked.subject,
        "subject_issuer": None if asked is None else asked.subject_issuer,
    }
    return client_event(client, request, details, error=error)


def client_event(
    client: Client, request: Request, details: Mapping[str, Any], *, error: OAuthError | None = None
) -> AuditEvent:
    """A record of what a proven client did, or was refused, with the posture that it rests on."""
    who = {
        "agent": client.agent,
        "client_id": client.client_id,
        "method": client.method,
        "attestation_id": client.device.posture_attestation,
        "credential_id": client.credential.credential_id,
    }
    return AuditEvent(
        event="token",
        decision="accepted" if error is None else "refused",
        code=None if error is None else error.error,
        cause=None if error is None else error.cause,
        request_id=request.request_id,
        device_id=client.device.device_id,
        policy=client.policy.label,
        details={**who, **details},
    )


def refuse_client(
    service: Service, client: Client, request: Request, error: OAuthError, event: AuditEvent
) -> None:
    """Record that a proven client was refused, and spend its proofs: none of them opens anything else."""
    signer = service.audit_signer(request.now)

    def refuse(tx: Transaction) -> None:
        for one in client.spends:
            nonces.spend(tx, one.key, spent_at=request.now, expires_at=one.until)
        audit.append(tx, signer, event, chain=client.device.device_id, now=request.now)

    service.store.write(refuse)
    mark_recorded(error, client)


def _cut(text: str) -> str:
    """What a client wrote, as far as a record has room for it."""
    return text[:MOST_TEXT]


def mark_recorded(error: OAuthError, client: Client) -> None:
    """Its record is written; what it says of the client is proven."""
    error.recorded, error.client_id, error.device_id = True, client.client_id, client.device.device_id


def record_refusal(
    service: Service, error: OAuthError, *, event: Event, now: int, request_id: str, source: str
) -> None:
    """Record what nobody has proven to have asked, unless it was recorded; of a flood, the first few and then
    their number."""
    if error.recorded or not service.refusals.admit(event, error.error, now):
        return
    record = AuditEvent(
        event=event,
        decision="refused",
        code=error.error,
        cause=error.cause,
        request_id=request_id,
        device_id=error.device_id,
        details={"proven": False, "source": source, "client_id": error.client_id},
    )
    signer = service.audit_signer(now)
    service.store.write(lambda tx: audit.append(tx, signer, record, chain=None, now=now))
