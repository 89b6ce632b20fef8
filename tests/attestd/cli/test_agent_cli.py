"""`attestd agent` says in one line what to do next, and by its status who has to do it."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.serving import ATTESTD, Agent, Serving, free_port
from tests.tpm.device.leftovers import leftovers

SVID = ("--agent", "telemetry", "--format", "x509-svid")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "x509-svid"], "--agent NAME"),
        (["--agent", "telemetry", "--format", "jwt-svid"], "--audience A"),
        ([*SVID, "--audience", "https://a.example.org"], "--format jwt-svid"),
        (["--agent", "telemetry", "--format", "pgp"], "'pgp' is not one of"),
        ([*SVID, "--key", "yubikey"], "'yubikey' is not one of"),
        (["--agent", "../evil", "--format", "x509-svid"], "'../evil' is no name"),
        (["--agent", "Telemetry", "--format", "x509-svid"], "'Telemetry' is no name"),
        (["--seal", "/etc/evil"], "'/etc/evil' is no name"),
        (["--seal", "a" * 64], "is no name"),
        (["--event-log", "no such file"], "does not exist"),
        (["--ca", "no such file"], "does not exist"),
        (["--server", "http://example.org"], "http is for loopback only; use https"),
        (["--server", "ftp://127.0.0.1"], "must be absolute"),
        (["--server", "https://user@127.0.0.1"], "without user"),
        (["--server", "https://127.0.0.1/"], "must not end with a slash"),
        (["--server", "https://127.0.0.1:port"], "not a URL"),
        (["--server", "https://[::1"], "not a URL"),
        (["--server", "127.0.0.1:8440"], "must be absolute"),
    ],
)
def test_wrong_usage_ends_with_two_and_asks_nobody(
    agent: Agent, tmp_path: Path, arguments: list[str], words: str
) -> None:
    told = agent.attest(tmp_path / "out", *arguments, status=2)
    assert words in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert json.loads(agent("status", "--json").stdout)["last_attestation"] is None


def test_a_plain_address_of_another_machine_is_refused_at_enrolment(newcomer: Agent) -> None:
    told = newcomer("enroll", "--server", "http://192.0.2.1:8440", status=2)
    assert "http is for loopback only; use https" in told.stderr
    assert not newcomer.state.exists()


def test_a_first_enrolment_needs_a_server(newcomer: Agent) -> None:
    assert "--server URL" in newcomer("enroll", status=2).stderr


def test_an_option_that_is_missing_is_named(agent: Agent) -> None:
    assert "--out" in agent("attest", status=2).stderr


def test_a_server_that_is_not_there_ends_with_three(newcomer: Agent, tmp_path: Path) -> None:
    nobody = Agent(newcomer.tpm, tmp_path / "state", f"http://127.0.0.1:{free_port()}")
    told = nobody.enroll(status=3)
    assert "does not answer" in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_name_that_nobody_can_have_ends_with_three(newcomer: Agent) -> None:
    assert newcomer("enroll", "--server", "https://a..invalid", status=3).stderr.startswith("attestd: ")


def test_attesting_before_enrolling_names_the_step(newcomer: Agent, tmp_path: Path) -> None:
    assert "attestd agent enroll --server URL" in newcomer.attest(tmp_path / "out", status=1).stderr
    assert "attestd agent enroll --server URL" in newcomer("status", status=1).stderr


def test_a_damaged_state_is_told_by_its_file(agent: Agent, tmp_path: Path) -> None:
    for content in ("", "[]", "{}"):
        (agent.state / "enrollment.json").write_text(content)
        for told in (agent.attest(tmp_path / "out", status=2), agent("status", status=2)):
            assert f"{agent.state / 'enrollment.json'} is damaged" in told.stderr
    (agent.state / "enrollment.json").unlink()
    agent.enroll()
    agent.attest(tmp_path / "out")


def test_the_server_is_remembered(agent: Agent, tmp_path: Path) -> None:
    agent("enroll")
    agent("attest", "--out", tmp_path / "out", *SVID)


def test_status_says_where_it_is_enrolled_and_how_it_ended(agent: Agent, tmp_path: Path) -> None:
    before = json.loads(agent("status", "--json").stdout)
    assert (before["server"], before["device_id"], before["state"]) == (agent.url, agent.device_id, "active")
    assert (before["last_attestation"], before["tpm"]["manufacturer"]) == (None, "IBM")
    assert "sha256" in before["banks"]
    agent.attest(tmp_path / "out", *SVID)
    last = json.loads(agent("status", "--json").stdout)["last_attestation"]
    assert (last["verdict"], last["policy"]["name"]) == ("accepted", "fresh")
    for part in (agent.url, agent.device_id, "active", "accepted", "fresh"):
        assert part in agent("status").stdout
    assert leftovers(agent.tpm) == {}


def test_every_verb_takes_the_server_and_its_ca_and_another_server_is_refused(
    agent: Agent, tmp_path: Path
) -> None:
    agent.attest(tmp_path / "out", "--seal", "disk")
    here, elsewhere = (("--server", url, "--ca", "ca.pem") for url in (agent.url, "https://b.example.org"))
    for verb in (["status"], ["unseal", tmp_path / "out" / "disk.seal.json"]):
        agent(*verb, *here)
        told = agent(*verb, *elsewhere, status=1)
        assert f"enrolled at {agent.url}, not at https://b.example.org" in told.stderr
        assert told.stdout == ""


def test_the_same_wish_twice_is_one(agent: Agent, tmp_path: Path) -> None:
    told = agent.attest(tmp_path / "out", *SVID, *SVID, "--seal", "disk", "--seal", "disk")
    assert told.stdout.count("disk.seal.json") == 1


def test_the_installed_command_takes_its_tpm_from_the_environment(
    serving: Serving, newcomer: Agent, tmp_path: Path
) -> None:
    def attestd(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [ATTESTD, "agent", *arguments, "--state", newcomer.state],
            env={"ATTESTD_TPM": newcomer.tpm.tcti},
            capture_output=True,
            timeout=30,
        )

    enrolled = attestd("enroll", "--server", serving.url)
    assert (enrolled.returncode, enrolled.stderr) == (0, b"")
    attested = attestd("attest", "--out", tmp_path / "out", "--seal", "disk")
    assert attested.returncode == 0, attested.stderr
    opened = attestd("unseal", tmp_path / "out" / "disk.seal.json")
    assert (opened.returncode, len(opened.stdout), opened.stderr) == (0, 32, b"")
