"""What is being judged: this device as it stands in the store, under these policies, for this attestation?"""

from dataclasses import dataclass

from attestd.policy.active import ActivePolicies
from attestd.round.claim import Claim
from attestd.round.logs import Logs
from attestd.round.prove import Proven
from attestd.store.devices import Device


@dataclass(frozen=True, slots=True)
class Case:
    """One attestation whose nonce is spent and whose intent is recorded."""

    attestation_id: str
    request_id: str
    claim: Claim
    proven: Proven
    device: Device
    """The row as it stood when the nonce was spent; it may be newer than the one by which the quote was
    proven."""
    policies: ActivePolicies
    logs: Logs
