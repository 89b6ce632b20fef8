"""Is everything still as it was judged? Then the token is kept, and only then it leaves.

One transaction: every proof is spent, once; posture, policy and signing key are asked again; the token and
its audit record are written. What is refused here is recorded in the same transaction, proofs spent."""

from collections.abc import Iterable

from attestd.oauth.account import granted_event, mark_recorded, refused_event
from attestd.oauth.client.registration import registration
from attestd.oauth.descent import stands
from attestd.oauth.draft import Draft
from attestd.oauth.errors import OAuthError
from attestd.oauth.posture import live_posture
from attestd.oauth.replay import Spend
from attestd.oauth.request import Request
from attestd.policy.choose import NoPolicy
from attestd.policy.entitlement import NotEntitled
from attestd.service import Service
from attestd.store import audit, credentials, devices, meta, nonces, signing_keys, tokens
from attestd.store.engine import Transaction
from attestd.wire import Problem

_REPLAYED = {"dpop": "invalid_dpop_proof", "grant-assertion": "invalid_grant"}
"""The error for a second use of each kind of proof; of what authenticates a client it is `invalid_client`."""


def record_token(service: Service, request: Request, draft: Draft, *, kid: str) -> None:
    """OAuthError when a proof was used before or something changed meanwhile; Problem `unavailable` when the
    clock went back. Returns when the token is durable."""
    client = draft.asked.client
    signer = service.audit_signer(request.now)

    def record(tx: Transaction) -> OAuthError | Problem | None:
        if not meta.advance_time(tx, request.now, service.config.limits.clock_skew * 1000):
            # A second life for spent proofs would begin here.
            detail = "The service's clock went back; try again later."
            return Problem("unavailable", detail, cause="clock_went_back")
        error = spend_all(tx, client.spends, now=request.now) or _changed(service, tx, draft, kid=kid)
        if error is None:
            event = granted_event(client, request, draft.token, grant_type=draft.asked.grant_type)
        else:
            grant_type = draft.asked.grant_type
            event = refused_event(client, request, error, draft.asked, grant_type=grant_type)
        audit.append(tx, signer, event, chain=client.device.device_id, now=request.now)
        return error

    error = service.store.write(record)
    if isinstance(error, OAuthError):
        mark_recorded(error, client)
    if error is not None:
        raise error


def spend_all(tx: Transaction, spends: Iterable[Spend], *, now: int) -> OAuthError | None:
    """Each proof once, on whichever replica and after whatever restart."""
    for one in spends:
        if not nonces.spend(tx, one.key, spent_at=now, expires_at=one.until):
            word = _REPLAYED.get(one.kind, "invalid_client")
            return OAuthError(word, "The proof was used before; make a new one.", cause="replayed")
    return None


def _changed(service: Service, tx: Transaction, draft: Draft, *, kid: str) -> OAuthError | None:
    """None if posture, policy, parents and signing key are still those that were judged; the token is then
    kept."""
    client, token, now = draft.asked.client, draft.token, draft.token.issued_at
    credential = credentials.get(tx, client.credential.credential_id)
    device = devices.find(tx, client.device.device_id)
    if credential is None or device is None:
        return _meanwhile("credential_ended")
    try:
        live_posture(service, device, credential, now=now, max_age=client.grant.max_posture_age)
        in_force = registration(service, tx, device, credential)
    except OAuthError as error:
        return error
    except (NoPolicy, NotEntitled):
        return _meanwhile("policy_changed")
    if in_force != (client.policy, client.grant):
        return _meanwhile("policy_changed")
    if not signing_keys.note_expiry(tx, kid, token.expires_at):
        return _meanwhile("key_changed")
    stand = all(stands(service, tx, parent, now=now) for parent in token.parents)
    if not stand or not tokens.insert(tx, token):
        detail = "The subject token was ended meanwhile."
        return OAuthError("invalid_request", detail, cause="subject_inactive")
    return None


def _meanwhile(cause: str) -> OAuthError:
    return OAuthError("invalid_grant", "What the token rests on changed; ask again.", cause=cause)
