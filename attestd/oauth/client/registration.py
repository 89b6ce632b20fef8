"""Which agent of which device is this, and what does the policy in force let it ask for?

Nothing is registered: the credential that the device received by attestation says who the client is, and the
grant of the active policy that gives such credentials to this agent is its registration.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attestd.issue.keys import Keys
from attestd.issue.signer import Signer
from attestd.oauth.client.client import Client, Confirmation, Method
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.replay import Spend
from attestd.oauth.request import Request
from attestd.policy.active import ActivePolicy
from attestd.policy.choose import NoPolicy, Subject, choose_policy
from attestd.policy.entitlement import NotEntitled, find_grant, spiffe_id
from attestd.policy.grants import Grant
from attestd.service import Service
from attestd.store import credentials, devices
from attestd.store.credentials import Issued
from attestd.store.devices import Device
from attestd.store.engine import Transaction


@dataclass(frozen=True, slots=True)
class ProvenCredential:
    """A credential of ours whose holder proved itself in this request; made by a client authentication method
    after its last cryptographic check."""

    method: Method
    credential_id: str
    format: str
    client_id: str
    thumbprint: str | None
    """RFC 7638, of the key that was proven; None for a JWT-SVID, which has none."""
    confirmation: Confirmation
    spends: tuple[Spend, ...] = ()
    proven_dpop: bool = False

    def fits(self, issued: Issued) -> bool:
        """Whether that is what was issued under this credential's name."""
        found = (issued.format, issued.spiffe_id, issued.key_thumbprint)
        return found == (self.format, self.client_id, self.thumbprint)


def recognise(service: Service, proven: ProvenCredential, *, now: int) -> Client:
    """The client behind the credential. OAuthError `invalid_client` when the credential is not (any more) as
    it was issued, or the policy in force gives it nothing. The device's posture is not looked at here."""

    def find(tx: Transaction) -> Client:
        # 1. We issued it, as this kind, to this client, for this key.
        issued = credentials.get(tx, proven.credential_id)
        if issued is None or not proven.fits(issued):
            raise refusal("credential_unknown", "The credential is none that was issued here.")
        # 2. It was not ended.
        if not issued.is_live(now):
            raise _of(issued, refusal("credential_ended", "The credential has ended."))
        device = devices.find(tx, issued.device_id)
        if device is None:
            raise refusal("device_unknown", "The device is not known.")
        # 3. The policy in force still grants it.
        try:
            policy, grant = registration(service, tx, device, issued)
        except (NoPolicy, NotEntitled) as error:
            raise _of(issued, refusal(f"policy_{error.reason}", error.detail)) from None
        return Client(
            client_id=issued.spiffe_id,
            agent=issued.agent,
            device=device,
            credential=issued,
            method=proven.method,
            confirmation=proven.confirmation,
            resident=issued.resident,
            spends=proven.spends,
            policy=policy,
            grant=grant,
            proven_dpop=proven.proven_dpop,
        )

    return service.store.read(find)


def published_key(keys: Keys, use: str, kid: str | None) -> Signer:
    """The key of ours with this name that relying parties may still believe; TokenError `kid_unknown` for one
    that was retired, is of another use, or never was ours."""
    for signer in keys.published(use):
        if signer.kid == kid:
            return signer
    raise TokenError("kid_unknown", "kid names a key that this service publishes for such tokens")


def check_client_id(request: Request, expected: str, *, required: bool = False) -> None:
    """The parameter `client_id`, where it is given, names the client that the credential does."""
    given = request.one("client_id")
    if given is None and required:
        raise refusal("client_id_missing", "The parameter client_id is needed.")
    if given is not None and given != expected:
        raise refusal("client_id_mismatch", "The parameter client_id names another client.")


def refusal(cause: str, detail: str) -> OAuthError:
    """`invalid_client`: the answer is the same whatever the cause."""
    return OAuthError("invalid_client", detail, cause=cause)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """A token that is not what it must be authenticates no client; `what` begins the audit word."""
    try:
        yield
    except TokenError as error:
        raise refusal(f"{what}_{error.reason}", error.detail) from None


def registration(
    service: Service, tx: Transaction, device: Device, issued: Issued
) -> tuple[ActivePolicy, Grant]:
    """NoPolicy or NotEntitled when a credential like this one would not be given now."""
    active = service.policies.active(tx)
    subject = Subject(device.device_id, device.labels, device.manufacturer)
    document = choose_policy(active.documents, subject)
    grant = find_grant(document, agent=issued.agent, credential_format=issued.format)
    identity = spiffe_id(
        grant,
        trust_domain=service.config.trust_domain,
        device_id=device.device_id,
        name=device.name,
        labels=device.labels,
    )
    if identity != issued.spiffe_id:
        raise NotEntitled("id_changed", "the policy names this agent otherwise now; attest again")
    if grant.key == "tpm" and not issued.resident:
        raise NotEntitled("software_key", "the policy wants a key that lives in the TPM; attest again")
    return active.active(document), grant


def _of(issued: Issued, error: OAuthError) -> OAuthError:
    """Its holder has proven itself, so the refusal is this client's and this device's."""
    error.client_id, error.device_id = issued.spiffe_id, issued.device_id
    return error
