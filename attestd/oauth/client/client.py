"""Who authenticated, on which credential does that rest, and what is its token to be bound to?"""

from dataclasses import dataclass
from typing import Literal

from attestd.oauth.replay import Spend
from attestd.policy.active import ActivePolicy
from attestd.policy.grants import Grant
from attestd.store.credentials import Issued
from attestd.store.devices import Device

Method = Literal[
    "tls_client_auth",
    "spiffe_jwt",
    "private_key_jwt",
    "workload_identity_token",
    "attest_jwt_client_auth",
    "attest_jwt_client_auth_dpop",
]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a token for this client is bound to (RFC 7800): the key of the credential that authenticated it.

    `none` comes of a JWT-SVID alone, which has no key: only a bearer token can follow from it.
    """

    kind: Literal["jkt", "x5t#S256", "none"]
    value: str = ""
    """RFC 7638 thumbprint of the key, or SHA-256 of the certificate; base64url."""

    def claim(self) -> dict[str, str] | None:
        """The value of `cnf`; None where the token is bound to nothing."""
        return None if self.kind == "none" else {self.kind: self.value}


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated client; comes from `choose.authenticate` alone.

    What it rests on was live when it was read; whoever records an outcome asks again in the transaction of
    the outcome (`posture.live_posture`) and spends `spends` there.
    """

    client_id: str
    """The agent's SPIFFE ID."""
    agent: str
    device: Device
    credential: Issued
    method: Method
    confirmation: Confirmation
    resident: bool
    """The key that was proven lives in the device's TPM."""
    spends: tuple[Spend, ...]
    policy: ActivePolicy
    grant: Grant
    """The one that gives the credential's format to this agent: the client's registration."""
    proven_dpop: bool
    """The request carried a DPoP proof, by the key in `confirmation`."""
