"""Agents with credentials of a real service, and what they send: every member can be changed into a lie.

Tokens are put together by hand, so that a mistake in the service's reader is not made here too.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.clock import now_ms
from attestd.oauth import challenge
from attestd.oauth.client.choose import authenticate
from attestd.oauth.client.client import Client
from attestd.oauth.errors import OAuthError
from attestd.oauth.request import Request
from tests.attester import Machine, PrivateKey, b64url, jwk_of, jws_value, new_key, signing_key
from tests.deployment import SERVER, Deployment, credential, policy_for

TOKEN_URL = f"{SERVER}/oauth/token"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SVID_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
GONE = object()
"""As the value of a member: leave the member out."""

GRANTS = f"""
[[grant]]
agent = "planner"
formats = ["x509-svid", "wit-svid", "client-attestation"]
key = "any"
scopes = ["plan.read"]
max_posture_age = "1h"
[[grant]]
agent = "keeper"
formats = ["x509-svid", "wit-svid", "client-attestation"]
key = "tpm"
[[grant]]
agent = "courier"
formats = ["jwt-svid"]
key = "any"
bearer = true
audiences = ["{SERVER}", "https://other.example.org"]
[[grant]]
agent = "clerk"
formats = ["jwt-svid"]
key = "any"
audiences = ["{SERVER}"]
"""


@dataclass(frozen=True)
class In:
    """As the value of a member: the time so many seconds from when the token is made. A table of lies is made
    when tests are collected, which may be minutes before."""

    seconds: int


Change = Mapping[str, Any]


def changed(members: Mapping[str, Any], changes: Change) -> dict[str, Any]:
    kept = {name: value for name, value in {**members, **changes}.items() if value is not GONE}
    return {
        name: seconds() + value.seconds if isinstance(value, In) else value for name, value in kept.items()
    }


def compact(key: PrivateKey, header: Change | bytes, claims: Change | bytes) -> str:
    """A compact JWS over exactly these members, or exactly these bytes."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signing_input = ".".join(b64url(part) for part in parts)
    return f"{signing_input}.{b64url(jws_value(key, signing_input.encode()))}"


def public(key: PrivateKey) -> dict[str, str]:
    """The JWK as it stands in a DPoP proof, without `alg`."""
    return {name: value for name, value in jwk_of(key).items() if name != "alg"}


def thumbprint(key: PrivateKey) -> str:
    """RFC 7638."""
    text = json.dumps(public(key), sort_keys=True, separators=(",", ":"))
    return b64url(hashlib.sha256(text.encode()).digest())


def digest(token: str) -> str:
    return b64url(hashlib.sha256(token.encode()).digest())


def seconds() -> int:
    return now_ms() // 1000


@dataclass(frozen=True)
class Agent:
    """One agent on one machine with one credential, and the private key that it is bound to."""

    deployment: Deployment
    machine: Machine
    name: str
    key: PrivateKey
    text: str
    """The token, or the certificate chain in PEM."""

    @property
    def client_id(self) -> str:
        return f"spiffe://example.org/agent/{self.name}/{self.machine.device_id}"

    @property
    def certificate(self) -> bytes:
        return x509.load_pem_x509_certificate(self.text.encode()).public_bytes(Encoding.DER)

    def challenge(self, *, now: int | None = None) -> str:
        """A nonce of the service."""
        return challenge.issue(self.deployment.service.challenges, now=now or now_ms())

    def signed(self, kind: str, claims: Change, **header: Any) -> str:
        return compact(self.key, changed({"alg": jwk_of(self.key)["alg"], "typ": kind}, header), claims)

    def dpop(self, *, header: Change | None = None, **claims: Any) -> str:
        """A proof for the token endpoint."""
        members = {
            "jti": secrets.token_urlsafe(16),
            "htm": "POST",
            "htu": TOKEN_URL,
            "iat": seconds(),
            "nonce": self.challenge(),
        }
        shown = changed({"jwk": public(self.key)}, header or {})
        return self.signed("dpop+jwt", changed(members, claims), **shown)

    def assertion(self, *, header: Change | None = None, **claims: Any) -> str:
        """A client assertion of `private_key_jwt`."""
        members = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": SERVER,
            "jti": secrets.token_urlsafe(16),
            "iat": seconds(),
            "exp": seconds() + 60,
        }
        return self.signed("client-authentication+jwt", changed(members, claims), **(header or {}))

    def wpt(self, *, header: Change | None = None, **claims: Any) -> str:
        """A workload proof token for the token endpoint."""
        members = {
            "aud": TOKEN_URL,
            "exp": seconds() + 60,
            "jti": secrets.token_urlsafe(16),
            "wth": digest(self.text),
        }
        return self.signed("wpt+jwt", changed(members, claims), **(header or {}))

    def pop(self, *, header: Change | None = None, **claims: Any) -> str:
        """The proof beside a client attestation."""
        members = {
            "aud": SERVER,
            "jti": secrets.token_urlsafe(16),
            "iat": seconds(),
            "challenge": self.challenge(),
        }
        return self.signed("oauth-client-attestation-pop+jwt", changed(members, claims), **(header or {}))


def new_agent(
    deployment: Deployment, machine: Machine, form: str, *, name: str = "planner", kind: str = "p256"
) -> Agent:
    """An agent with a software key, or (a keeper) with one that lives in the TPM."""
    if form == "jwt-svid":
        wanted = credential(form, name, audience=[SERVER])
        return Agent(deployment, machine, name, new_key(kind), attested(deployment, machine, wanted))
    if name == "keeper":
        held = signing_key(kind)
        wanted = credential(form, name, key={"name": held.name.hex()})
        text = attested(deployment, machine, wanted, certified=[held])
        return Agent(deployment, machine, name, held.key, text)
    key = new_key(kind)
    text = attested(deployment, machine, credential(form, name, key=jwk_of(key)))
    return Agent(deployment, machine, name, key, text)


def attested(deployment: Deployment, machine: Machine, wanted: dict[str, Any], **members: Any) -> str:
    answer = deployment.attest(machine, credentials=[wanted], **members)
    given = answer["credentials"][0]
    return str(given.get("token") or given["certificate_chain"])


def prepared(deployment: Deployment) -> Machine:
    """A machine that the policy with all the agents of this folder accepts."""
    machine = deployment.machine()
    deployment.apply(policy_for(machine, extra=GRANTS))
    return machine


# --- requests ---------------------------------------------------------------------------------------------


def request(
    parameters: Mapping[str, str | tuple[str, ...]] | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Request:
    """A token request with these parameters and headers."""
    given = {"grant_type": "client_credentials", **(parameters or {})}
    made = Request(
        url=TOKEN_URL,
        method="POST",
        parameters={n: (v,) if isinstance(v, str) else v for n, v in given.items()},
        headers={name.lower(): value for name, value in (headers or {}).items()},
        now=now_ms(),
        request_id="request-1",
        source="192.0.2.1",
    )
    return replace(made, **members)


def by_assertion(agent: Agent, token: str | None = None, **members: Any) -> Request:
    parameters = {"client_assertion_type": ASSERTION, "client_assertion": token or agent.assertion()}
    return request(parameters | members.pop("parameters", {}), **members)


def by_wit(agent: Agent, proof: str | None = None, **members: Any) -> Request:
    headers = {"Workload-Identity-Token": agent.text, "Workload-Proof-Token": proof or agent.wpt()}
    return request(headers=headers | members.pop("headers", {}), **members)


def by_attestation(agent: Agent, proof: str | None = None, **members: Any) -> Request:
    headers = {"OAuth-Client-Attestation": agent.text, "OAuth-Client-Attestation-PoP": proof or agent.pop()}
    return request(headers=headers | members.pop("headers", {}), **members)


def by_attestation_and_dpop(agent: Agent, proof: str | None = None, **members: Any) -> Request:
    headers = {"OAuth-Client-Attestation": agent.text, "DPoP": proof or agent.dpop()}
    return request(headers=headers | members.pop("headers", {}), **members)


def by_certificate(agent: Agent, **members: Any) -> Request:
    parameters = {"client_id": agent.client_id} | members.pop("parameters", {})
    return request(parameters, **{"certificate": agent.certificate, **members})


def by_jwt_svid(agent: Agent, token: str | None = None, **members: Any) -> Request:
    parameters = {"client_assertion_type": SVID_ASSERTION, "client_assertion": token or agent.text}
    return request(parameters | members.pop("parameters", {}), **members)


WAYS: Mapping[str, tuple[str, str, Callable[[Agent], Request]]] = {
    "tls_client_auth": ("x509-svid", "planner", by_certificate),
    "spiffe_jwt": ("jwt-svid", "courier", by_jwt_svid),
    "private_key_jwt": ("wit-svid", "planner", by_assertion),
    "workload_identity_token": ("wit-svid", "planner", by_wit),
    "attest_jwt_client_auth": ("client-attestation", "planner", by_attestation),
    "attest_jwt_client_auth_dpop": ("client-attestation", "planner", by_attestation_and_dpop),
}
"""Every method, with the format of its credential, an agent that may use it, and a healthy request."""


def accepted(agent: Agent, asked: Request) -> Client:
    """The client; fails the test when it is refused."""
    client = authenticate(agent.deployment.service, asked)
    assert (client.client_id, client.agent) == (agent.client_id, agent.name)
    assert client.device.device_id == agent.machine.device_id
    return client


def refused(agent: Agent, asked: Request, error: str, cause: str, *, status: int | None = None) -> OAuthError:
    """The refusal with this error and this audit word."""
    with pytest.raises(OAuthError) as refusal:
        authenticate(agent.deployment.service, asked)
    assert (refusal.value.error, refusal.value.cause) == (error, cause)
    assert status is None or refusal.value.status == status
    return refusal.value
