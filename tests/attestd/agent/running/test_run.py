"""`attestd agent run`, as systemd starts it: it enrols, serves, tells how it is, and ends."""

import asyncio
import fcntl
import json
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.agent.running.run import STUCK_SECONDS, pinging
from attestd.agent.workload.client import WorkloadClient
from attestd.notify import Notifier
from tests.attestd.agent.far_side import BUNDLE, CHALLENGE, FarSide, member_of
from tests.attestd.agent.running.started import PLAIN, Running
from tests.serving import Agent, Serving
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

MEMORY_KB = 60 * 1024
IDLE_SECONDS, WAKE_UPS = 3.0, 6


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "agent"


@pytest.fixture
def running(newcomer: Agent, directory: Path) -> Iterator[Running]:
    """A machine that never enrolled, at its first boot, with its identity."""
    with Running(newcomer, directory, server=newcomer.url) as made:
        made.identity()
        yield made


async def svids(path: Path) -> tuple[list[str], str]:
    """What a local program gets: the SPIFFE IDs of its X.509-SVIDs, and a JWT-SVID."""
    async with WorkloadClient(path) as client:
        given = await anext(aiter(client.x509_svids()))
        token = await client.jwt_svid(("https://a.example.org",))
    return [svid.spiffe_id for svid in given], token.text


def test_a_local_program_gets_its_identity_from_a_machine_that_nobody_touched(running: Running) -> None:
    identities, token = asyncio.run(svids(running.socket))
    device = running.agent.device_id
    assert identities == [f"spiffe://example.org/agent/builder/{device}"]
    assert token.count(".") == 2
    assert running.end() < 2
    assert leftovers(running.agent.tpm) == {}


def test_it_stays_below_sixty_mebibytes_and_sleeps_when_there_is_nothing_to_do(running: Running) -> None:
    asyncio.run(svids(running.socket))
    time.sleep(0.3)
    before = running.kernel("voluntary_ctxt_switches") + running.kernel("nonvoluntary_ctxt_switches")
    time.sleep(IDLE_SECONDS)
    after = running.kernel("voluntary_ctxt_switches") + running.kernel("nonvoluntary_ctxt_switches")
    assert after - before <= WAKE_UPS
    assert running.kernel("VmHWM") < MEMORY_KB


def test_a_second_one_ends_with_status_1_and_names_the_first(running: Running) -> None:
    second = subprocess.run(running.command, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert f"pid {running.process.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_the_next_one_takes_over_where_this_one_was_killed(running: Running) -> None:
    device = running.agent.device_id
    running.process.kill()
    running.process.wait()
    with Running(running.agent, running.directory) as again:
        assert again.identity()["device_id"] == device
        assert asyncio.run(svids(again.socket))[0]


def test_it_ends_within_two_seconds_of_each_signal_though_its_server_hangs(
    shared_tpm: SoftwareTpm, tmp_path: Path, directory: Path
) -> None:
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.1)
            yield b"H"

    with FarSide({BUNDLE: drip}) as far:
        member = member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
        for number in (signal.SIGTERM, signal.SIGINT):
            asked = far.count(BUNDLE)
            with Running(member, directory) as made:
                while far.count(BUNDLE) == asked:
                    time.sleep(0.01)
                assert made.end(number) < 2
    assert leftovers(shared_tpm) == {}


def test_the_settings_are_read_again_when_told_so_and_a_mistake_changes_nothing(running: Running) -> None:
    running.configure('[[workload]]\nagnet = "x"\n')
    running.process.send_signal(signal.SIGHUP)
    wait_for(running, "stay as they were")
    assert running.standing()["identity"] is True
    running.configure(PLAIN.split('[[workload]]\nagent = "telemetry"')[0])
    running.process.send_signal(signal.SIGHUP)
    told = running.until(lambda told: len({each["agent"] for each in told["credentials"]}) == 1)
    assert told["withheld"] == {}
    running.configure(PLAIN + 'hint = "main"\n[other]\n'.replace("[other]\n", ""))
    (running.directory / "agent.toml").write_text(
        (running.directory / "agent.toml").read_text().replace("workload.sock", "other.sock")
    )
    running.process.send_signal(signal.SIGHUP)
    wait_for(running, "changed socket: that is taken up at the next start")
    running.until(lambda told: len({each["agent"] for each in told["credentials"]}) == 2)


def wait_for(running: Running, words: str) -> None:
    end = time.monotonic() + 20
    while words not in running.log.read_text():
        assert time.monotonic() < end, running.log.read_text()
        time.sleep(0.01)


def test_systemd_is_told_when_it_serves_that_it_lives_and_that_it_stops(
    newcomer: Agent, directory: Path, tmp_path: Path
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(address))
        sock.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000", "JOURNAL_STREAM": "8:1"}
        with Running(newcomer, directory, environment=environment, server=newcomer.url) as made:
            said = [sock.recv(4096).decode()]
            assert said[0].startswith("READY=1")
            assert made.socket.exists()
            while not any("holding credentials" in line for line in said) or "WATCHDOG=1" not in said:
                said.append(sock.recv(4096).decode())
            made.process.send_signal(signal.SIGHUP)
            while not said[-1].startswith("RELOADING=1\nMONOTONIC_USEC="):
                said.append(sock.recv(4096).decode())
            while not said[-1].startswith("READY=1"):
                said.append(sock.recv(4096).decode())
            made.end()
            while not said[-1].startswith("STOPPING=1"):
                said.append(sock.recv(4096).decode())
        # The journal has its own clock.
        assert all(line[:2] != "20" for line in made.log.read_text().splitlines())


@pytest.mark.parametrize(
    ("stuck_for", "pings"), [(0.0, True), (STUCK_SECONDS - 1, True), (STUCK_SECONDS, False)]
)
def test_a_watchdog_hears_nothing_of_a_worker_that_is_stuck(
    tmp_path: Path, stuck_for: float, pings: bool
) -> None:
    address = tmp_path / "notify"

    async def work() -> None:
        async with pinging(Notifier(str(address), 0.01), lambda: stuck_for):
            await asyncio.sleep(0.1)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(address))
        sock.setblocking(False)
        asyncio.run(work())
        heard = select.select([sock], [], [], 0)[0]
        assert bool(heard) is pings


def test_commands_have_their_turns_at_the_tpm_beside_the_running_agent(
    running: Running, tmp_path: Path
) -> None:
    for number in range(3):
        running.process.send_signal(signal.SIGHUP)
        running.agent.attest(tmp_path / str(number), "--agent", "builder", "--format", "x509-svid")
    assert running.standing()["posture"]["verdict"] == "accepted"
    assert running.end() < 2
    assert leftovers(running.agent.tpm) == {}


# --- attestd agent status -------------------------------------------------------------------------


def test_status_says_who_it_is_what_it_holds_and_what_comes_next(running: Running) -> None:
    agent = running.agent
    told = json.loads(agent("status", "--json").stdout)
    assert told["agent"] == running.standing()
    assert (told["state"], told["last_attestation"]["verdict"]) == ("active", "accepted")
    text = agent("status").stdout
    for part in (
        agent.device_id,
        agent.url,
        "accepted",
        "fresh@1",
        "next try",
        "renewal",
        "x509-svid, until",
    ):
        assert part in text
    assert f"spiffe://example.org/agent/telemetry/{agent.device_id}" in text
    running.end()
    assert "does not run" in agent("status").stdout
    assert json.loads(agent("status", "--json").stdout)["agent"] is None


def test_status_of_a_machine_that_is_denied_says_why_and_ends_with_1(
    newcomer: Agent, directory: Path
) -> None:
    newcomer.tpm.extend(7, {"sha256": b"\5" * 32})
    with Running(newcomer, directory, server=newcomer.url) as made:
        made.until(lambda told: told["posture"]["verdict"] == "denied")
        text = newcomer("status", status=1).stdout
        for part in (
            "denied since",
            "posture_rejected",
            "pcr_unexpected pcr7, expected",
            "found",
            "in a row",
        ):
            assert part in text, text
        assert json.loads(newcomer("status", "--json", status=1).stdout)["agent"]["identity"] is False
        assert "no identity within 0.3 seconds" in newcomer("status", "--wait", "0.3", status=1).stderr


def test_status_of_a_machine_whose_service_never_answered(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    agent = Agent(software_tpm, tmp_path / "state", "http://127.0.0.1:9")
    with Running(agent, tmp_path / "agent", server=agent.url) as made:
        made.until(lambda told: told["posture"]["verdict"] == "unreachable")
        text = agent("status", status=1).stdout
        for part in ("none yet", "http://127.0.0.1:9 (not enrolled)", "unreachable since", "no_answer"):
            assert part in text, text


def test_status_waits_neither_for_an_agent_that_waits_for_its_server_nor_for_who_is_at_the_tpm(
    shared_tpm: SoftwareTpm, serving: Serving, tmp_path: Path, directory: Path
) -> None:
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.1)
            yield b"H"

    with FarSide({BUNDLE: serving.get(BUNDLE), CHALLENGE: drip}) as far:
        member = member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
        with Running(member, directory) as made:
            while not far.count(CHALLENGE):
                time.sleep(0.01)
            start = time.monotonic()
            free = member("status", status=1).stdout
            for part in ("firmware", f"runs, pid {made.process.pid}", "unknown", "first attestation"):
                assert part in free
            with (member.state / "tpm.lock").open() as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                assert "in use by the agent" in member("status", status=1).stdout
            assert time.monotonic() - start < 10
            assert made.end() < 2


def test_status_waits_for_the_identity(newcomer: Agent, directory: Path) -> None:
    assert newcomer("status", "--wait", "0.1", status=1).stdout == ""
    with Running(newcomer, directory, server=newcomer.url):
        assert newcomer("status", "--wait", "20").stdout == ""
        assert newcomer("status", "--wait").stdout == ""


def test_what_an_earlier_agent_told_is_not_taken_for_now(running: Running, serving: Serving) -> None:
    running.process.kill()
    running.process.wait()
    assert running.standing()["identity"] is True
    assert "no identity within" in running.agent("status", "--wait", "0.1", status=1).stderr
