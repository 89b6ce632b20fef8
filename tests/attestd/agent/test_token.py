"""An attested machine gets tokens that work with its TPM's key alone; another gets none, and nothing is
kept."""

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from attestd.agent.attest import Wanted
from attestd.agent.errors import NotEnrolled, Refusal
from attestd.agent.machine import Machine, ResidentKey
from attestd.agent.proofs import dpop_proof, workload_proof
from attestd.agent.token import CHALLENGE_PATH, TOKEN_PATH, Asked, attest_client, request_token
from attestd.clock import now_ms
from tests.attestd.agent.tools import Tools
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers

HEADERS = ["Authorization", "DPoP"]


def told(output: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(output.splitlines()[0])
    return members


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_token_is_bound_to_a_key_in_the_tpm_and_says_for_whom_it_is(tools: Tools, caller: Agent) -> None:
    members = told(caller("token", "--agent", "planner", "--audience", tools.audience).stdout)
    assert members.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (members["token_type"], members["scope"]) == ("DPoP", "ledger.read ledger.write")
    assert 0 < members["expires_in"] <= 300
    claims = claims_of(members["access_token"])
    assert claims["sub"] == claims["client_id"]
    assert claims["client_id"].startswith("spiffe://example.org/agent/planner/")
    assert (claims["aud"], claims["cnf"].keys()) == (tools.audience, {"jkt"})
    assert leftovers(caller.tpm) == {}


def test_scopes_narrow_it(tools: Tools, caller: Agent) -> None:
    wanted = ("--agent", "planner", "--audience", tools.audience)
    assert told(caller("token", *wanted, "--scope", "ledger.read").stdout)["scope"] == "ledger.read"
    both = ("--scope", "ledger.write", "--scope", "ledger.read ledger.write")
    assert told(caller("token", *wanted, *both).stdout)["scope"] == "ledger.read ledger.write"


def test_with_a_users_token_it_is_about_the_user_and_the_agent_acts(
    tools: Tools, caller: Agent, tmp_path: Path
) -> None:
    (tmp_path / "user.jwt").write_text(tools.login.token() + "\n")
    wanted = ("--agent", "planner", "--audience", tools.audience, "--subject-token", tmp_path / "user.jwt")
    claims = claims_of(told(caller("token", *wanted).stdout)["access_token"])
    assert claims["sub"] == "alice"
    assert claims["act"] == {"sub": claims["client_id"]}


def test_a_token_is_passed_on_to_the_next_agent(tools: Tools, caller: Agent, tmp_path: Path) -> None:
    machine, now = tools.machine(caller), now_ms()
    first = Asked("planner", tools.audience, subject_token=tools.login.token())
    token = request_token(machine.server, attest_client(machine, "planner"), first, now=now)
    (tmp_path / "first.jwt").write_text(token.text)
    wanted = ("--agent", "helper", "--audience", tools.audience, "--subject-token", tmp_path / "first.jwt")
    claims = claims_of(told(caller("token", *wanted).stdout)["access_token"])
    actor = claims["act"]
    assert (claims["sub"], actor["sub"]) == ("alice", claims["client_id"])
    assert "/agent/helper/" in actor["sub"]
    assert "/agent/planner/" in actor["act"]["sub"]


def get(url: str, headers: Mapping[str, str]) -> tuple[int, str | None]:
    """Status, and the nonce for the next proof."""
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=dict(headers))
    answer = connection.getresponse()
    connection.close()
    return answer.status, answer.headers["DPoP-Nonce"]


def test_both_headers_for_a_shell_make_one_call(tools: Tools, caller: Agent) -> None:
    url = f"{tools.url}/ledger?account=7"
    wanted = ("--agent", "planner", "--audience", tools.audience, "--proof", "GET", url)

    def headers(*more: str) -> dict[str, str]:
        output = caller("token", *wanted, *more).stdout
        made = dict(line.split(": ", 1) for line in output.splitlines()[1:])
        assert list(made) == HEADERS
        assert made["Authorization"] == f"DPoP {told(output)['access_token']}"
        return made

    status, nonce = get(url, headers())
    assert status == 401
    made = headers("--nonce", str(nonce))
    assert get(url, made)[0] == 200
    assert get(url, made)[0] == 401
    again = headers("--nonce", str(nonce))
    assert get(f"{tools.url}/another", again)[0] != 200
    assert get(url, again | {"DPoP": made["DPoP"]})[0] == 401


def test_the_agent_of_the_last_attestation_is_meant_where_none_is_named(tools: Tools, caller: Agent) -> None:
    wanted = ("--audience", tools.audience)
    assert "--agent NAME" in caller("token", *wanted, status=2).stderr
    caller("token", "--agent", "planner", *wanted)
    claims = claims_of(told(caller("token", *wanted).stdout)["access_token"])
    assert "/agent/planner/" in claims["sub"]


def test_nothing_of_it_is_written(tools: Tools, caller: Agent, tmp_path: Path) -> None:
    (tmp_path / "user.jwt").write_text(tools.login.token())
    wanted = ("--agent", "planner", "--audience", tools.audience, "--subject-token", tmp_path / "user.jwt")
    caller("token", *wanted)
    before = files_of(tmp_path).keys()
    output = caller("token", *wanted, "--proof", "GET", f"{tools.url}/ledger").stdout
    assert files_of(tmp_path).keys() == before
    secrets = [told(output)["access_token"], *output.split()]
    kept = b"".join(files_of(caller.state).values())
    assert not [each for each in secrets if len(each) > 40 and each.encode() in kept]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--agent", "planner", "--scope", "ledger.delete"), "invalid_scope"),
        (("--agent", "helper", "--scope", "ledger.write"), "invalid_scope"),
    ],
)
def test_what_is_not_granted_is_refused_in_the_words_of_oauth(
    tools: Tools, caller: Agent, arguments: tuple[str, ...], error: str
) -> None:
    ended = caller("token", "--audience", tools.audience, *arguments, status=1)
    assert (json.loads(ended.stderr)["error"], ended.stdout) == (error, "")


def test_another_audience_and_another_users_token_are_refused(
    tools: Tools, caller: Agent, tmp_path: Path
) -> None:
    ended = caller("token", "--agent", "planner", "--audience", "https://evil.example.org", status=1)
    assert json.loads(ended.stderr)["error"] == "invalid_target"
    for changed in ({"iss": "https://evil.example.org"}, {"aud": "another"}, {"exp": 1}):
        (tmp_path / "user.jwt").write_text(tools.login.token(**changed))
        wanted = (
            "--agent",
            "planner",
            "--audience",
            tools.audience,
            "--subject-token",
            tmp_path / "user.jwt",
        )
        ended = caller("token", *wanted, status=1)
        assert (json.loads(ended.stderr)["error"], ended.stdout) == ("invalid_request", "")


def test_an_agent_without_the_format_gets_no_attestation(tools: Tools, caller: Agent) -> None:
    ended = caller("token", "--agent", "nobody", "--audience", tools.audience, status=1)
    assert (json.loads(ended.stderr)["code"], ended.stdout) == ("not_entitled", "")


def test_a_machine_that_booted_otherwise_gets_no_token_and_remembers_why(tools: Tools, caller: Agent) -> None:
    caller("token", "--agent", "planner", "--audience", tools.audience)
    caller.tpm.extend(7, {"sha256": b"\x01" * 32})
    ended = caller("token", "--audience", tools.audience, status=1)
    assert (json.loads(ended.stderr)["code"], ended.stdout) == ("posture_rejected", "")
    last = json.loads(caller("status", "--json").stdout)["last_attestation"]
    assert (last["verdict"], last["agent"], last["code"]) == ("refused", "planner", "posture_rejected")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--agent", "Planner"), "'Planner' is no name"),
        (("--agent", "planner", "--proof", "GET", "/ledger"), "no absolute URL"),
        (("--agent", "planner", "--proof", "G T", "https://a.example"), "no HTTP method"),
        (("--agent", "planner", "--nonce", "n-1"), "belongs to --proof"),
        (("--agent", "planner", "--proof", "GET", "https://a.example", "--nonce", "n 1"), "DPoP-Nonce"),
        (("--agent", "planner", "--subject-token", "no such file"), "does not exist"),
        (("--agent", "planner", "--server", "http://192.0.2.1"), "http is for loopback only"),
    ],
)
def test_wrong_usage_ends_with_two_and_asks_nobody(
    tools: Tools, caller: Agent, arguments: tuple[str, ...], words: str
) -> None:
    before = tools.attested()
    ended = caller("token", "--audience", tools.audience, *arguments, status=2)
    assert words in ended.stderr
    assert (len(ended.stderr.splitlines()), ended.stdout, tools.attested()) == (1, "", before)


@pytest.mark.parametrize("content", ["", "two tokens", "ümlaut", "a" * 16385])
def test_what_is_no_token_is_not_sent(tools: Tools, caller: Agent, tmp_path: Path, content: str) -> None:
    (tmp_path / "user.jwt").write_text(content)
    wanted = ("--agent", "planner", "--audience", tools.audience, "--subject-token", tmp_path / "user.jwt")
    assert "holds no token" in caller("token", *wanted, status=2).stderr


def test_before_enrolment_the_next_step_is_named(newcomer: Agent) -> None:
    ended = newcomer("token", "--agent", "planner", "--audience", "https://a.example", status=1)
    assert "attestd agent enroll --server URL" in ended.stderr
    with pytest.raises(NotEnrolled):
        Machine.enrolled(newcomer.tpm.tcti, newcomer.state)


def test_a_client_attestation_is_delivered_like_a_wit(tools: Tools, caller: Agent, tmp_path: Path) -> None:
    formats = ("--format", "client-attestation", "--format", "wit-svid")
    caller.attest(tmp_path / "out", "--agent", "planner", *formats)
    assert {"planner.attestation.jwt", "planner.wit.jwt", "planner.key.tss"} <= files_of(tmp_path).keys()
    token = (tmp_path / "out" / "planner.attestation.jwt").read_text().strip()
    assert jwt.get_unverified_header(token)["typ"] == "oauth-client-attestation+jwt"
    assert claims_of(token)["cnf"].keys() == {"jwk"}


def test_an_attestation_with_another_key_is_worth_nothing(tools: Tools, caller: Agent) -> None:
    machine = tools.machine(caller)
    one, other = attest_client(machine, "planner"), attest_client(machine, "planner")
    asked = Asked("planner", tools.audience)
    assert request_token(machine.server, one, asked, now=now_ms()).expires_in > 0
    for name, value in (("key", other.key), ("text", other.text)):
        changed = type(one)(**{**{each: getattr(one, each) for each in one.__slots__}, name: value})
        with pytest.raises(Refusal) as refusal:
            request_token(machine.server, changed, asked, now=now_ms())
        assert refusal.value.error in ("invalid_client", "invalid_dpop_proof")


def test_a_wit_with_our_workload_proof_authenticates_the_agent(tools: Tools, caller: Agent) -> None:
    machine = tools.machine(caller)
    url, server = f"{machine.server.url}{TOKEN_PATH}", machine.server
    received = machine.attest(Wanted("planner", ("wit-svid",), "tpm", (), ()))
    key, wit = machine.key(received.parts[0]), received.answer["credentials"][0]["token"]
    other = machine.key(machine.attest(Wanted("planner", ("wit-svid",), "tpm", (), ())).parts[0])

    def ask(signer: ResidentKey) -> Mapping[str, Any]:
        nonce = server.post_form(CHALLENGE_PATH, {}, {})["attestation_challenge"]
        headers = {
            "Workload-Identity-Token": wit,
            "Workload-Proof-Token": workload_proof(signer, wit, url, now=now_ms()),
            "DPoP": dpop_proof(key, "POST", url, now=now_ms(), nonce=nonce),
        }
        form = {"grant_type": "client_credentials", "resource": tools.audience}
        return server.post_form(TOKEN_PATH, form, headers)

    assert ask(key)["token_type"] == "DPoP"
    with pytest.raises(Refusal) as refusal:
        ask(other)
    assert refusal.value.error == "invalid_client"
