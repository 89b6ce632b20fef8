"""An authorization server with everybody around it: agents on attested machines, users of an OpenID Provider,
and protected resources. Requests come in as HTTP forms; every part of them can be changed into a lie.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.attestd.oauth.agents import (
    ASSERTION,
    SVID_ASSERTION,
    Agent,
    changed,
    compact,
    new_agent,
    public,
    seconds,
    thumbprint,
)
from tests.attester import Machine, PrivateKey, new_key
from tests.deployment import SERVER, Deployment, policy_for

LOGIN = "https://login.example.org"
OTHER_LOGIN = "https://other-login.example.org"
TOOLS = "https://tools.example.org"
LEDGER = "https://ledger.example.org"
AUDIENCE = "attestd"

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"

_ALL = '["x509-svid", "wit-svid", "client-attestation"]'
GRANTS = f"""
[[grant]]
agent = "planner"
formats = {_ALL}
key = "any"
ttl = "10m"
scopes = ["plan.read", "plan.write", "plan.admin"]
audiences = ["{TOOLS}", "{LEDGER}"]
authorization_details = ["transfer", "report"]
max_posture_age = "1h"
delegation = {{ issuers = ["{LOGIN}", "{SERVER}"], depth = 3 }}
[[grant]]
agent = "helper"
formats = {_ALL}
key = "any"
scopes = ["plan.read", "plan.write", "help"]
audiences = ["{TOOLS}", "{LEDGER}"]
authorization_details = ["transfer"]
delegation = {{ issuers = ["{LOGIN}", "{SERVER}"], depth = 2 }}
[[grant]]
agent = "runner"
formats = {_ALL}
key = "any"
scopes = ["plan.read"]
audiences = ["{TOOLS}"]
delegation = {{ issuers = ["{LOGIN}", "{SERVER}"], depth = 3 }}
[[grant]]
agent = "loner"
formats = {_ALL}
key = "any"
scopes = ["plan.read"]
audiences = ["{TOOLS}"]
[[grant]]
agent = "mute"
formats = {_ALL}
key = "any"
scopes = ["plan.read"]
[[grant]]
agent = "keeper"
formats = {_ALL}
key = "tpm"
audiences = ["{TOOLS}"]
[[grant]]
agent = "porter"
formats = ["wit-svid"]
key = "any"
bearer = true
audiences = ["{TOOLS}"]
[[grant]]
agent = "courier"
formats = ["jwt-svid"]
key = "any"
bearer = true
scopes = ["plan.read"]
audiences = ["{SERVER}", "{TOOLS}"]
"""


@dataclass(frozen=True)
class Provider:
    """A users' OpenID Provider; its keys lie in a file of the service."""

    issuer: str
    key: PrivateKey = field(default_factory=lambda: new_key("p256"))
    kid: str = "login-1"

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """An ID token of the user alice; every member can be another, or GONE."""
        members = {
            "iss": self.issuer,
            "sub": "alice",
            "aud": AUDIENCE,
            "iat": seconds(),
            "exp": seconds() + 600,
        }
        shown = changed({"alg": "ES256", "kid": self.kid}, header or {})
        return compact(self.key, shown, changed(members, claims))

    def key_set(self) -> dict[str, Any]:
        return {"keys": [{**public(self.key), "kid": self.kid, "use": "sig", "alg": "ES256"}]}


@dataclass(frozen=True)
class Tool:
    """A protected resource with a key of its own."""

    client_id: str
    key: PrivateKey = field(default_factory=lambda: new_key("p256"))

    def assertion(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        members = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": SERVER,
            "jti": secrets.token_urlsafe(16),
            "iat": seconds(),
            "exp": seconds() + 60,
        }
        shown = changed({"alg": "ES256", "typ": "client-authentication+jwt", "kid": "tool-1"}, header or {})
        return compact(self.key, shown, changed(members, claims))

    def key_set(self) -> dict[str, Any]:
        return {"keys": [{**public(self.key), "kid": "tool-1"}]}


@dataclass(frozen=True)
class Reply:
    """An answer of the authorization server."""

    status: int
    members: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def error(self) -> tuple[int, str]:
        return self.status, str(self.members.get("error", self.members.get("code", "")))


@dataclass
class World:
    """Everybody. `machine` is accepted by the policy in force, and so is every other of the same maker."""

    deployment: Deployment
    machine: Machine
    login: Provider
    tools: Tool
    ledger: Tool
    agents: dict[tuple[str, str], Agent] = field(default_factory=dict)

    @classmethod
    def create(cls, directory: Path, *, more: str = "", **options: Any) -> "World":
        """`more` is added to the configuration."""
        login, tools, ledger = Provider(LOGIN), Tool(TOOLS), Tool(LEDGER)

        def prepare(folder: Path) -> None:
            for name, party in (("login", login), ("tools", tools), ("ledger", ledger)):
                (folder / f"{name}.jwks").write_text(json.dumps(party.key_set()))
            with (folder / "attestd.toml").open("a") as file:
                file.write(_PARTIES + more)

        options.setdefault("settings", {"audit_unproven": "0"})
        deployment = Deployment.create(directory, prepare=prepare, **options)
        machine = deployment.machine()
        deployment.apply(policy_for(machine, extra=GRANTS))
        return cls(deployment, machine, login, tools, ledger)

    # --- agents -------------------------------------------------------------------------------------------

    def agent(
        self, name: str = "planner", form: str = "wit-svid", *, machine: Machine | None = None
    ) -> Agent:
        """An agent with a credential; the same one for the same question."""
        machine = machine or self.machine
        key = (f"{name}/{form}", machine.device_id)
        if key not in self.agents:
            self.agents[key] = new_agent(self.deployment, machine, form, name=name)
        return self.agents[key]

    # --- requests -----------------------------------------------------------------------------------------

    def post(
        self, path: str, form: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A form; a list as a value repeats its name, None leaves it out."""
        kept = (
            form
            if isinstance(form, bytes)
            else {name: value for name, value in form.items() if value is not None}
        )
        answer = self.deployment.client.post(
            path,
            data=kept,
            content_type="application/x-www-form-urlencoded",
            headers=dict(headers or {}),
        )
        members = json.loads(answer.data) if answer.data else {}
        return Reply(answer.status_code, members, answer.headers)

    def ask(self, agent: Agent, headers: Mapping[str, str] | None = None, **form: Any) -> Reply:
        """A token request by `private_key_jwt` and a DPoP proof (`headers` replace it)."""
        fields = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION,
            "client_assertion": agent.assertion(),
            **form,
        }
        return self.post("/oauth/token", fields, {"DPoP": agent.dpop()} if headers is None else headers)

    def token(self, agent: Agent, **form: Any) -> dict[str, Any]:
        """The members of a granted request; fails the test when it is refused."""
        reply = self.ask(agent, **({"resource": TOOLS} | form))
        assert reply.status == 200, reply
        return reply.members

    def exchange(self, agent: Agent, token: str, kind: str = ID_TOKEN, /, **form: Any) -> Reply:
        fields: dict[str, Any] = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": kind,
            "resource": TOOLS,
        }
        return self.ask(agent, **(fields | form))

    def delegated(self, agent: Agent, token: str, kind: str = ID_TOKEN, /, **form: Any) -> str:
        """The access token of a granted exchange."""
        reply = self.exchange(agent, token, kind, **form)
        assert reply.status == 200, reply
        return str(reply.members["access_token"])

    def bearer(self, agent: Agent, **form: Any) -> Reply:
        """A token request by JWT-SVID, with no proof of anything."""
        fields = {"grant_type": "client_credentials", "resource": TOOLS}
        svid = {"client_assertion_type": SVID_ASSERTION, "client_assertion": agent.text}
        return self.post("/oauth/token", {**fields, **svid, **form})

    def introspect(self, token: str | None, tool: Tool | None = None, /, **form: Any) -> Reply:
        """As a resource with its own key."""
        fields = {"token": token, "client_assertion_type": ASSERTION}
        fields["client_assertion"] = (tool or self.tools).assertion()
        return self.post("/oauth/introspect", {**fields, **form})

    def is_active(self, token: str, tool: Tool | None = None) -> bool:
        """What a resource is told; nothing else is said of an inactive token."""
        reply = self.introspect(token, tool)
        assert reply.status == 200, reply
        assert reply.members["active"] is True or reply.members == {"active": False}
        return bool(reply.members["active"])

    def revoke(self, agent: Agent, token: str | None, **form: Any) -> Reply:
        fields = {"token": token, "client_assertion_type": ASSERTION, "client_assertion": agent.assertion()}
        return self.post("/oauth/revoke", {**fields, **form})

    # --- what was kept ------------------------------------------------------------------------------------

    def count(self, table: str) -> int:
        """How many rows there are."""
        return int(
            self.deployment.service.store.read(
                lambda tx: tx.execute(f"SELECT COUNT(*) AS n FROM {table}").fetchone()["n"]
            )
        )

    def refused(self, reply: Reply, status: int, error: str, cause: str) -> None:
        """This was the refusal, nothing was issued, and the audit knows why."""
        assert reply.error == (status, error), reply
        assert "access_token" not in reply.members
        last = self.deployment.audit(event="token", decision="refused")[-1]
        assert (last["code"], last["cause"]) == (error, cause), last
        assert last["request_id"] == reply.headers["X-Request-Id"]


_PARTIES = f"""
[[subject_issuer]]
issuer = "{LOGIN}"
audience = "{AUDIENCE}"
jwks = "file:login.jwks"
[[resource]]
audience = "{TOOLS}"
jwks = "file:tools.jwks"
[[resource]]
audience = "{LEDGER}"
jwks = "file:ledger.jwks"
"""


def jkt(agent: Agent) -> str:
    return thumbprint(agent.key)
