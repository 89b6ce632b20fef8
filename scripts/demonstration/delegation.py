"""A user lets an attested agent act for her: what may it do, who knows of it, and when does it end?"""

import json
import subprocess
import sys
import textwrap
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestd.agent.auth.session import AgentSession
from attestd.agent.logs import LogFiles
from attestd.agent.machine import Machine
from attestd.agent.token import Asked
from scripts.demonstration.assistant import call_tool
from scripts.demonstration.claims import claim
from scripts.demonstration.display import WIDTH
from scripts.demonstration.login import AUDIENCE, Login
from scripts.demonstration.measured_boot import BOOT_LOG, LOG_OPTIONS, SYSTEMD_LOG, start_another
from scripts.demonstration.people import Person, await_port
from tpm.swtpm import SoftwareTpm

ROOT = Path(__file__).parents[2]
USER, AGENT, SCOPE = "alice", "assistant", "ledger.read"
SECONDS = 2.0
"""Within which a lost posture must have ended the call."""

GRANT = """
[[grant]]
agent = "assistant"
spiffe_id = "spiffe://{{trust_domain}}/{{agent}}/{{name}}"
formats = ["client-attestation"]               # an OAuth client, whose key never leaves the TPM
ttl = "10m"
audiences = ["{tool}"]
scopes = ["ledger.read"]
delegation = {{ issuers = ["{login}"], depth = 1 }}    # whose users it may act for
"""

_PARTIES = """
[[subject_issuer]]
issuer = "{login}"
audience = "{audience}"
jwks = "discovery"
allow_private = true
[[resource]]
audience = "{tool}"
jwks = "file:keys/tool.jwks"
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where users log in, and where the tool is."""

    login: str
    tool: str


def introduce(operator: Person, places: Places) -> None:
    """Tell the service, before it starts, of the users' OpenID Provider and of the tool, which may ask about
    tokens."""
    made = subprocess.run(
        [sys.executable, "-m", "attestd.resource.new_key", str(operator.home / "tool.pem")],
        capture_output=True,
        check=True,
    )
    (operator.home / "keys" / "tool.jwks").write_bytes(made.stdout)
    with (operator.home / "attestd.toml").open("a") as configuration:
        configuration.write(_PARTIES.format(login=places.login, tool=places.tool, audience=AUDIENCE))
    operator.display.say(f"attestd.toml names the users' OpenID Provider {places.login}")
    operator.display.say(f"and the tool {places.tool}, which may ask about tokens for itself")


@contextmanager
def tool(operator: Person, places: Places, issuer: str) -> Iterator[None]:
    """The MCP server of `mcp_server.py`, until the context ends."""
    port = places.tool.rpartition(":")[2].partition("/")[0]
    key = operator.home / "tool.pem"
    command = [sys.executable, "-m", "scripts.demonstration.mcp_server", issuer, str(key), port]
    with (operator.home / "tool.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        await_port(process, int(port), operator.home / "tool.log")
        yield
    finally:
        process.terminate()
        process.wait(12)


def act(machine: Person, tpm: SoftwareTpm, places: Places, provider: Login) -> tuple[AgentSession, str]:
    """The agent calls the tool for alice; the session, and her token's `jti`."""
    display = machine.display
    with display.stage(f"Alice lets {machine.name}'s assistant act for her; it calls a tool over MCP"):
        users_token = provider.log_in(USER)
        (machine.home / "alice.jwt").write_text(users_token)
        words = ["--audience", places.tool, "--scope", SCOPE, "--subject-token", "alice.jwt", *LOG_OPTIONS]
        machine.runs("agent", "token", "--agent", AGENT, *words, "--state", "state")
        files = LogFiles(machine.home / BOOT_LOG, machine.home / SYSTEMD_LOG)
        here = Machine.enrolled(tpm.tcti, machine.home / "state", files=files)
        session = AgentSession(here, Asked(AGENT, places.tool, (SCOPE,), users_token))
        claims = _claims(session.token().text)
        expected = f"spiffe://demo.example/{AGENT}/{machine.name}"
        claim(
            (claims["sub"], claims["client_id"], claims["act"]) == (USER, expected, {"sub": expected}),
            f"the token should be about {USER}, by {expected}",
        )
        claim("jkt" in claims["cnf"], "the token should be bound to the key in the TPM")
        display.say(f"a token about {claims['sub']}, acting {claims['act']['sub']},", "green")
        display.say(f"for {claims['aud']}, scope {claims['scope']}, bound to a key in the TPM", "green")
        answer = call_tool(places.tool, session)
        claim(answer.text == f"acme holds 42 for {USER}, told to {expected}", f"the tool answered {answer}")
        display.say(f"the tool answers:   {answer.text}", "green")
        nobody = call_tool(places.tool, None)
        claim((nobody.text, nobody.status) == (None, 401), "nobody else should be let in")
        display.say(f"without a token:    {nobody.status}")
    return session, claims["jti"]


def look_back(operator: Person, token_id: str) -> None:
    """Which agent, on whose behalf, under which posture and policy?"""
    with operator.display.stage("The operator asks which agent it was, on whose behalf, on which machine"):
        told = operator.runs("audit", "trace", "--", token_id).lines
        text = "\n".join(told)
        for needed in (f"on behalf of {USER}", f"/{AGENT}/gateway-1", "gateway@1", "evidence", token_id):
            claim(needed in text, f"the trace should tell {needed}")
        for line in told:
            indent = " " * (len(line) - len(line.lstrip()))
            pieces = textwrap.wrap(line.strip(), WIDTH - 6 - len(indent), break_on_hyphens=False)
            for number, piece in enumerate(pieces):
                operator.display.say(f"{indent}{'    ' if number else ''}{piece}")


def lose(machine: Person, tpm: SoftwareTpm, places: Places, session: AgentSession) -> float:
    """The machine measures something else; the seconds until the same call was refused."""
    display = machine.display
    with display.stage(
        f"{machine.name} starts something else; the same call, with the same token, is refused"
    ):
        answer = call_tool(places.tool, session)
        claim(answer.text is not None, "the call should still be let in")
        start_another(machine.home, tpm)
        said = machine.runs(
            "agent",
            "attest",
            "--agent",
            AGENT,
            "--format",
            "client-attestation",
            *LOG_OPTIONS,
            "--state",
            "state",
            "--out",
            "credentials",
            status=1,
        ).said
        lost = time.monotonic()
        problem = json.loads(said)
        claim(problem["code"] == "posture_rejected", f"the refusal should be of its posture, not {problem}")
        display.say(f"{problem['status']} {problem['code']}: {_told(problem['findings'][0])}", "red")
        answer = call_tool(places.tool, session)
        while answer.text is not None and time.monotonic() - lost < SECONDS:
            answer = call_tool(places.tool, session)
        seconds = time.monotonic() - lost
        claim(
            answer.status == 401 and answer.text is None, f"the tool should refuse within {SECONDS:g} seconds"
        )
        display.say(f"the tool answers:   {answer.status} {_error(answer.why)}, {seconds:.1f} s later", "red")
    return seconds


def _told(finding: dict[str, Any]) -> str:
    return f"{finding['subject']}, event {finding['event']}"


def _error(challenge: str) -> str:
    return challenge.partition('error="')[2].partition('"')[0]


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims
