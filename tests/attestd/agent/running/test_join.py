"""One command brings a new machine to its identity: it says what it waits for, and again is harmless."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.agent.state import State
from tests.serving import ATTESTD, FRESH, Agent, Serving
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

OTHER_BOOT = FRESH.replace("00" * 32, "ab" * 32).replace('name = "fresh"', 'name = "other-boot"', 1)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service in which an operator admits each machine."""
    service = Serving(tmp_path_factory.mktemp("strict") / "srv")
    settings = service.directory / "attestd.toml"
    settings.write_text(settings.read_text().replace("auto_admit = true", "auto_admit = false"))
    with service as running:
        yield running


@pytest.fixture
def stranger(strict: Serving, software_tpm: SoftwareTpm, tmp_path: Path) -> Agent:
    return Agent(software_tpm, tmp_path / "state", strict.url)


def test_a_new_machine_ends_with_its_identity(newcomer: Agent, serving: Serving) -> None:
    told = newcomer("join", newcomer.url, "--agent", "telemetry").stdout
    assert f"device        {newcomer.device_id}\n" in told
    assert "accepted by   fresh@" in told
    assert f"telemetry     spiffe://example.org/agent/telemetry/{newcomer.device_id}\n" in told
    assert serving.device(newcomer.device_id)["state"] == "active"
    kept = State(newcomer.state).last()
    assert kept is not None
    assert kept["verdict"] == "accepted"
    assert leftovers(newcomer.tpm) == {}


def test_joining_again_is_harmless_and_the_same_device(newcomer: Agent) -> None:
    first = newcomer("join", newcomer.url).stdout
    recipe = State(newcomer.state).recipe()
    assert newcomer("join", newcomer.url).stdout == first
    assert State(newcomer.state).recipe() == recipe


def test_an_agent_that_the_policy_does_not_name_is_told_and_the_others_have_theirs(newcomer: Agent) -> None:
    told = newcomer("join", newcomer.url, "--agent", "stranger", "--agent", "telemetry", status=1).stdout
    assert "stranger      has no identity: " in told
    assert "telemetry     spiffe://" in told


def test_the_workloads_of_the_settings_are_shown_and_nothing_is_delivered_or_sealed(
    newcomer: Agent, serving: Serving, tmp_path: Path
) -> None:
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'[[workload]]\nagent = "builder"\nuser = ["root"]\nfiles = "{tmp_path}/files"\nseals = ["disk"]\n'
    )
    told = newcomer("join", newcomer.url, "--config", settings).stdout
    assert "builder       spiffe://example.org/agent/builder/" in told
    assert not (tmp_path / "files").exists()
    issued = [each for each in serving.listed("audit", "show") if each["event"] == "issue"]
    mine = [each for each in issued if each["device_id"] == newcomer.device_id]
    assert len(mine) == 1


def test_who_does_not_wait_is_told_whom_to_ask_and_goes_on_later(stranger: Agent, strict: Serving) -> None:
    told = stranger("join", stranger.url, "--no-wait")
    assert told.stdout == f"pending {stranger.device_id}\n"
    assert f"attestd device approve {stranger.device_id}" in told.stderr
    strict.operate("device", "approve", stranger.device_id)
    assert "accepted by   fresh@1" in stranger("join", stranger.url, "--no-wait").stdout


def test_a_machine_waits_until_it_is_newcomer(stranger: Agent, strict: Serving) -> None:
    command = [ATTESTD, "agent", "join", stranger.url, "--tpm", stranger.tpm.tcti, "--state", stranger.state]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not (said := process.stderr.readline()).startswith("waiting"):
        assert said
    device = json.loads((stranger.state / "enrollment.json").read_text())["device_id"]
    assert said == f"waiting for an operator to admit this machine: attestd device approve {device}\n"
    strict.operate("device", "approve", device)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"device        {device}\n" in out


def test_a_machine_that_waits_goes_on_when_its_service_was_away(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    service = Serving(tmp_path / "srv")
    settings = service.directory / "attestd.toml"
    settings.write_text(settings.read_text().replace("auto_admit = true", "auto_admit = false"))
    agent = Agent(software_tpm, tmp_path / "state", service.url)
    results: list[str] = []
    with service:
        thread = threading.Thread(target=lambda: results.append(agent("join", agent.url).stdout))
        thread.start()
        while State(agent.state).last() is None:
            time.sleep(0.05)
    with service:
        service.operate("device", "approve", agent.device_id)
        thread.join(60)
    assert "accepted by   fresh@1" in results[0]


def test_a_refused_machine_is_told_why_in_words(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    with Serving(tmp_path / "srv", policies=(OTHER_BOOT,)) as service:
        agent = Agent(software_tpm, tmp_path / "state", service.url)
        told = agent("join", agent.url, status=1).stderr
        assert "not accepted: posture_rejected: " in told
        assert f"pcr_unexpected pcr0, expected {'ab' * 32}, found {'00' * 32}" in told
        assert f"attestd device why {agent.device_id}" in told
        kept = State(agent.state).last()
        assert kept is not None
        assert kept["code"] == "posture_rejected"


def test_a_machine_of_another_service_stays_there(newcomer: Agent, strict: Serving) -> None:
    newcomer("join", newcomer.url)
    before = {path.name: path.read_bytes() for path in newcomer.state.iterdir()}
    told = newcomer("join", strict.url, status=2).stderr
    assert f"has joined {newcomer.url} already" in told
    assert {path.name: path.read_bytes() for path in newcomer.state.iterdir()} == before


def test_that_is_told_before_anybody_is_asked(newcomer: Agent) -> None:
    newcomer("join", newcomer.url)
    told = newcomer("join", "https://attestd.example.org", status=2).stderr
    assert told.startswith(f"attestd: this machine has joined {newcomer.url} already; to leave it, ")
    assert len(told.splitlines()) == 1


def test_a_machine_whose_tpm_was_exchanged_joins_as_a_device_of_its_own(
    newcomer: Agent, serving: Serving
) -> None:
    newcomer("join", newcomer.url)
    before = newcomer.device_id
    with SoftwareTpm() as other:
        moved = Agent(other, newcomer.state, newcomer.url)
        told = moved("join", newcomer.url, "--agent", "telemetry")
        assert "joins as a device of its own" in told.stderr
        assert f"spiffe://example.org/agent/telemetry/{moved.device_id}" in told.stdout
    assert moved.device_id != before
    assert {serving.device(each)["state"] for each in (before, moved.device_id)} == {"active"}


def test_a_machine_whose_key_is_gone_joins_again_whatever_the_settings_say(
    newcomer: Agent, tmp_path: Path
) -> None:
    newcomer("join", newcomer.url)
    before = newcomer.device_id
    (newcomer.state / "ak.recipe").write_bytes(b"")
    (tmp_path / "agent.toml").write_text("reactivate = false\n")
    newcomer("join", newcomer.url, "--config", tmp_path / "agent.toml")
    assert newcomer.device_id == before


def test_what_is_not_as_it_should_be_is_shown_first_and_the_rest_in_a_line(newcomer: Agent) -> None:
    first, *others = newcomer("join", newcomer.url).stderr.splitlines()
    assert first.startswith("warn  tpm maker       a software TPM")
    assert others[-1].startswith("ok    ")
    assert "pcr banks, ek certificate" in others[-1]
    assert "this machine has joined already" in newcomer("join", newcomer.url).stderr


def test_a_wrong_address_is_told_at_once(newcomer: Agent) -> None:
    started = time.monotonic()
    told = newcomer("join", "http://127.0.0.1:1", status=3).stderr
    assert "FAIL  server " in told
    assert "Connection refused" in told
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--root-sha256", "ab"], "64 hex digits"),
        (["--root-sha256", "zz" * 32], "64 hex digits"),
        (["--server", "http://127.0.0.1:2"], "two services"),
        (["--agent", "../x"], "is no name"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    newcomer: Agent, arguments: list[str], said: str
) -> None:
    assert said in newcomer("join", newcomer.url, *arguments, status=2).stderr
    assert not newcomer.state.exists()


def test_two_ways_to_trust_are_refused(newcomer: Agent, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    told = newcomer("join", newcomer.url, "--ca", ca, "--root-sha256", "ab" * 32, status=2).stderr
    assert "keep one" in told
