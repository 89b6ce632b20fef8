"""A program without any right to the TPM gets access tokens and proofs from the running agent."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.token import Asked
from attestd.cli.main import main
from tests.attestd.agent.workload.domain import workload
from tests.attestd.agent.workload.serving import Serving, me, serving

AUDIENCE = "https://a.example.org"
URL = "https://a.example.org/ledger?account=7"
TELEMETRY = workload("telemetry", user=[me()])
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def served() -> Iterator[Serving]:
    with serving(TELEMETRY) as running:
        yield running


def token(*arguments: str, status: int = 0, environ: dict[str, str] | None = None) -> Result:
    told = {"SPIFFE_ENDPOINT_SOCKET": None, "ATTESTD_TPM": None, **(environ or {})}
    result = CliRunner().invoke(main, ["agent", "token", "--audience", AUDIENCE, *arguments], env=told)
    assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
    return result


def at(served: Serving) -> tuple[str, str]:
    return "--socket", str(served.path)


def test_ag_2_the_token_comes_from_the_running_agent_as_from_an_attestation(served: Serving) -> None:
    members = json.loads(token(*at(served), "--scope", "read write", "--scope", "read").stdout)
    assert members == {
        "access_token": "token-1",
        "token_type": "DPoP",
        "expires_in": 290,
        "scope": "read write",
    }
    assert served.shelf.asked == [Asked("telemetry", AUDIENCE, ("read", "write"))]


def test_with_a_proof_both_headers_of_one_request_are_printed(served: Serving) -> None:
    lines = token(*at(served), "--proof", "GET", URL, "--nonce", "n-1").stdout.splitlines()
    assert lines[1:] == ["Authorization: DPoP token-1", "DPoP: proof-1"]
    assert served.shelf.asked[1:] == [("telemetry", "token-1", "GET", URL, "n-1")]
    assert len(token(*at(served)).stdout.splitlines()) == 1


def test_a_users_token_is_passed_on_and_is_in_no_argument(served: Serving, tmp_path: Path) -> None:
    (tmp_path / "user.jwt").write_text("a.b.c\n")
    token(*at(served), "--subject-token", str(tmp_path / "user.jwt"))
    assert served.shelf.asked == [Asked("telemetry", AUDIENCE, (), "a.b.c")]


def test_of_several_agents_one_must_be_named_and_another_is_refused() -> None:
    with serving(TELEMETRY, workload("builder", user=[me()]), workload("other", user=["54321"])) as served:
        told = json.loads(token(*at(served), status=1).stderr)
        assert (told["code"], "telemetry, builder" in told["detail"]) == ("invalid_argument", True)
        token(*at(served), "--agent", "builder")
        assert [asked.agent for asked in served.shelf.asked] == ["builder"]
        told = json.loads(token(*at(served), "--agent", "other", status=1).stderr)
        assert told["code"] == "permission_denied"
        assert [asked.agent for asked in served.shelf.asked] == ["builder"]


def test_the_environments_endpoint_is_enough_but_for_who_names_a_tpm(served: Serving, tmp_path: Path) -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{served.path}"}
    token(environ=environ)
    token(environ=environ | {"ATTESTD_TPM": "swtpm:path=/nowhere"})
    token("--socket", environ=environ)
    assert len(served.shelf.asked) == 3
    ended = token("--agent", "telemetry", "--state", str(tmp_path), environ=environ, status=1)
    assert "has no enrolment" in ended.stderr
    assert len(served.shelf.asked) == 3


@pytest.mark.parametrize("option", ["--tpm", "--state", "--server"])
def test_the_running_agent_and_a_tpm_of_ones_own_are_not_both_meant(served: Serving, option: str) -> None:
    ended = token(*at(served), option, "x", status=2)
    assert f"leave {option} out" in ended.stderr
    assert served.shelf.asked == []


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (Refusal(403, {"code": "posture_rejected", "detail": "pcr7"}), 1, '"code": "posture_rejected"'),
        (Refusal(400, {"error": "invalid_scope", "error_description": "x"}), 1, '"code": "invalid_scope"'),
        (Unreachable("the service does not answer"), 3, "the service does not answer"),
    ],
)
def test_what_the_agent_could_not_get_ends_as_without_it(
    served: Serving, failure: Exception, status: int, words: str
) -> None:
    served.shelf.fail = failure
    ended = token(*at(served), status=status)
    assert (ended.stdout, words in ended.stderr) == ("", True)


def test_an_audience_beyond_the_operators_is_refused(served: Serving) -> None:
    ended = CliRunner().invoke(
        main, ["agent", "token", *at(served), "--audience", "https://evil.example.org"]
    )
    assert (ended.exit_code, ended.stdout, served.shelf.asked) == (1, "", [])
    assert "https://evil.example.org" in json.loads(ended.stderr)["detail"]


def test_an_agent_that_is_not_there_is_told_with_the_socket(tmp_path: Path) -> None:
    ended = token("--socket", str(tmp_path / "no.sock"), status=3)
    assert f"{tmp_path}/no.sock: No such file or directory; is the agent running" in ended.stderr


@pytest.mark.parametrize("verb", ["token", "exec"])
def test_ag_2_who_asks_the_agent_loads_no_tpm_library(verb: str) -> None:
    program = (
        f"import sys, attestd.cli.agent_{verb}; "
        "print([name for name in sys.modules if name.startswith(('tpm2_pytss', 'tpm.device'))])"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, cwd=REPOSITORY, text=True) == "[]\n"


def test_ag_2_a_user_without_a_rule_gets_no_token() -> None:
    stranger = str(os.getuid() + 1)
    with serving(workload("telemetry", user=[stranger])) as served:
        ended = token(*at(served), status=1)
        assert json.loads(ended.stderr)["code"] == "permission_denied"
        assert (ended.stdout, served.shelf.asked) == ("", [])
