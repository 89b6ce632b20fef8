"""How does an agent get an access token that works with its TPM's key and with nothing else?

It attests, and receives a client attestation for a new key in the TPM. With that and a proof by the key it
asks the token endpoint (draft-ietf-oauth-attestation-based-client-auth, the combined form with DPoP,
RFC 9449). Both are kept in memory alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attestd.agent.attest import Part, Wanted
from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.machine import Machine, ResidentKey
from attestd.agent.proofs import ProofKey, dpop_proof
from attestd.agent.transport import Server, good_nonce
from attestd.clock import parse_rfc3339

TOKEN_PATH, CHALLENGE_PATH = "/oauth/token", "/oauth/challenge"
MAX_SECONDS = 24 * 3600
"""The longest life of a token that is believed."""

_FORMAT = "client-attestation"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_TEXT_LIMIT = 64 * 1024
_AGAIN = frozenset({"use_attestation_challenge", "use_dpop_nonce"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A token for one agent of this machine and one audience; on behalf of the user whose token is
    `subject_token`, or on its own authority."""

    agent: str
    audience: str
    scopes: tuple[str, ...] = ()
    subject_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ClientAttestation:
    """What says that this agent runs on an attested machine, and the key that it is for. Until `expires_at`
    (milliseconds); `policy` is what the machine was accepted by, as the service tells it."""

    text: str = field(repr=False)
    client_id: str
    key: ProofKey
    expires_at: int
    policy: Any = None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token bound to `key`. `expires_in` in seconds from `got_at` (milliseconds by this machine's
    clock)."""

    text: str = field(repr=False)
    expires_in: int
    scope: str
    key: ProofKey
    got_at: int

    def told(self) -> dict[str, Any]:
        """The members of RFC 6749, section 5.1."""
        return {
            "access_token": self.text,
            "token_type": "DPoP",
            "expires_in": self.expires_in,
            "scope": self.scope,
        }

    def headers(self, method: str, url: str, *, now: int, nonce: str | None = None) -> dict[str, str]:
        """What one request to a protected resource carries (RFC 9449, section 7.1)."""
        proof = dpop_proof(self.key, method, url, now=now, nonce=nonce, access_token=self.text)
        return {"Authorization": f"DPoP {self.text}", "DPoP": proof}


def attest_client(machine: Machine, agent: str) -> ClientAttestation:
    """A new key in the TPM, and a client attestation for it. Refusal, Unreachable, DeviceError or
    Misconfigured."""
    received = machine.attest(Wanted(agent, (_FORMAT,), "tpm", (), ()))
    (part,) = received.parts
    return _read_attestation(part, machine.key(part), received.answer.get("policy"))


def request_token(server: Server, attestation: ClientAttestation, asked: Asked, *, now: int) -> AccessToken:
    """The access token; Refusal with the error of the RFCs, or Unreachable."""
    parameters = _parameters(attestation, asked)
    nonce = _challenge(server)
    try:
        answer = _ask(server, attestation, parameters, nonce, now=now)
    except Refusal as refusal:
        # The challenge may have grown old meanwhile; the answer brings the next one.
        if refusal.error not in _AGAIN or refusal.nonce is None:
            raise
        answer = _ask(server, attestation, parameters, refusal.nonce, now=now)
    return _read_token(answer, attestation.key, asked, now=now)


def _parameters(attestation: ClientAttestation, asked: Asked) -> dict[str, str]:
    parameters = {"client_id": attestation.client_id}
    if asked.scopes:
        parameters["scope"] = " ".join(asked.scopes)
    if asked.subject_token is None:
        return {"grant_type": "client_credentials", "resource": asked.audience, **parameters}
    return {
        "grant_type": _EXCHANGE,
        "audience": asked.audience,
        "subject_token": asked.subject_token,
        "subject_token_type": _JWT,
        **parameters,
    }


def _challenge(server: Server) -> str:
    told = server.post_form(CHALLENGE_PATH, {}, {})
    nonce = good_nonce(told.get("attestation_challenge"))
    if nonce is None:
        raise Unreachable("the server's challenge cannot be read; is it attestd, in this version?")
    return nonce


def _ask(
    server: Server, attestation: ClientAttestation, parameters: Mapping[str, str], nonce: str, *, now: int
) -> dict[str, Any]:
    proof = dpop_proof(attestation.key, "POST", server.url + TOKEN_PATH, now=now, nonce=nonce)
    headers = {"OAuth-Client-Attestation": attestation.text, "DPoP": proof}
    return server.post_form(TOKEN_PATH, parameters, headers)


def _read_attestation(part: Part, key: ResidentKey, policy: Any) -> ClientAttestation:
    """Unreachable unless it can be used."""
    (credential,) = part.credentials
    try:
        expires_at = parse_rfc3339(credential["expires_at"])
        text, client_id = _header_text(credential["token"]), _header_text(credential["spiffe_id"])
    except (LookupError, TypeError, ValueError, AttributeError):
        raise Unreachable("the server's answer cannot be read; is it attestd, in this version?") from None
    return ClientAttestation(text, client_id, key, expires_at, policy)


def _read_token(answer: Mapping[str, Any], key: ProofKey, asked: Asked, *, now: int) -> AccessToken:
    """Unreachable unless it is a token that comes with proofs: one that works for whoever finds it was not
    asked for."""
    scope, seconds = answer.get("scope", " ".join(asked.scopes)), answer.get("expires_in")
    try:
        text = _header_text(answer.get("access_token"))
        if str(answer.get("token_type")).lower() != "dpop":
            raise ValueError("not bound by DPoP")
        if seconds.__class__ is not int or not 0 < int(seconds or 0) <= MAX_SECONDS:
            raise ValueError("no lifetime")
        if not isinstance(scope, str):
            raise ValueError("no scope")
    except ValueError:
        raise Unreachable("the server's token cannot be read; is it attestd, in this version?") from None
    return AccessToken(text, int(seconds or 0), scope, key, now)


def _header_text(value: object) -> str:
    """What fits a header as it is; ValueError for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_LIMIT:
        raise ValueError("no text")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("not printable")
    return value
