"""The power may go before any write and at any request of joining: again it ends with the same device."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from queue import Queue

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.state import State
from tests.attestd.agent.running.interrupted import join
from tests.deployment import Deployment
from tests.serving import FRESH, Agent
from tests.tpm.device.leftovers import leftovers
from tpm.device.device import Device
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import shared_test_ca
from tpm.verify.device_id import device_identifier

_warm = multiprocessing.get_context("forkserver")
_warm.set_forkserver_preload(["pytest", "attestd.cli.agent_join", "tests.attestd.agent.running.interrupted"])
SECONDS = 60.0


@dataclass
class Service:
    """The service behind a line that is cut together with the machine at its end: at the request number `at`,
    before it arrives (`heard` false) or before its answer does. `asked` are the paths so far, `victims` the
    processes to be killed."""

    url: str
    deployment: Deployment
    asked: list[str]
    victims: "Queue[int]" = field(default_factory=Queue)
    at: int = 0
    heard: bool = False

    def cut(self, *, heard: bool) -> bool:
        """Is it now? Then the machine is dead when this returns."""
        if len(self.asked) != self.at or heard != self.heard:
            return False
        os.kill(self.victims.get(timeout=SECONDS), signal.SIGKILL)
        return True


@contextmanager
def serving(directory: Path) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass("GET", b"")

        def do_POST(self) -> None:
            self._pass("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def _pass(self, method: str, body: bytes) -> None:
            there.asked.append(self.path)
            if there.cut(heard=False):
                return
            kind = self.headers.get("Content-Type")
            answer = there.deployment.client.open(self.path, method=method, data=body, content_type=kind)
            if there.cut(heard=True):
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            self.wfile.write(answer.data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    root = shared_test_ca().root.public_bytes(Encoding.PEM)
    deployment = Deployment.create(directory, roots=[root], settings={"external_url": f'"{url}"'})
    deployment.apply(FRESH)
    there = Service(url, deployment, [])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        deployment.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("interrupted") / "service") as running:
        yield running


@dataclass
class Site:
    """A machine that is joined anew again and again."""

    tpm: SoftwareTpm
    service: Service
    directory: Path

    @property
    def agent(self) -> Agent:
        return Agent(self.tpm, self.directory / "state", self.service.url)

    @property
    def device_id(self) -> str:
        with Device(self.tpm.tcti) as device:
            return device_identifier(device.endorsement().public.public_key())

    def begin(self) -> None:
        """A new machine, which the service does not know."""
        state = self.directory / "state"
        shutil.rmtree(state, ignore_errors=True)
        self.service.deployment.service.store.write(lambda tx: tx.execute("DELETE FROM devices"))
        self.service.asked.clear()
        self.service.at = 0

    def start(self, last: int | None = None) -> ForkServerProcess:
        given = [self.service.url, "--tpm", self.tpm.tcti, "--state", str(self.directory / "state")]
        given += ["--agent", "telemetry"]
        files = (str(self.directory / "log"), str(self.directory / "told"))
        process = _warm.Process(target=join, args=(given, *files, last), daemon=True)
        process.start()
        return process

    def ended(self, process: ForkServerProcess) -> int | None:
        process.join(SECONDS)
        self.service.at = 0
        return process.exitcode

    def check(self) -> None:
        """Every file is whole, or not there; what is there is of this machine."""
        kept = State(self.directory / "state")
        membership, recipe = kept.membership(), kept.recipe()
        kept.last()
        kept.standing()
        if membership is not None:
            assert membership.device_id == self.device_id
            assert recipe is not None

    def again(self) -> None:
        """The second run, which nobody interrupts, ends with the identity of the one device."""
        told = self.agent("join", self.service.url, "--agent", "telemetry").stdout
        assert f"device        {self.device_id}\n" in told
        assert f"telemetry     spiffe://example.org/agent/telemetry/{self.device_id}\n" in told
        assert [row["device_id"] for row in self.service.deployment.rows("SELECT * FROM devices")] == [
            self.device_id
        ]
        assert leftovers(self.tpm) == {}


@pytest.fixture
def site(service: Service, software_tpm: SoftwareTpm, tmp_path: Path) -> Site:
    made = Site(software_tpm, service, tmp_path)
    made.begin()
    return made


def test_uninterrupted_it_joins(site: Site) -> None:
    """The twin of what follows."""
    assert site.ended(site.start()) == 0, (site.directory / "log").read_text()
    site.check()
    site.again()


def test_killed_at_each_request_before_it_arrives_or_before_its_answer(site: Site) -> None:
    assert site.ended(site.start()) == 0
    requests = list(site.service.asked)
    assert {"/v1/enrollments", "/v1/activations", "/v1/challenges", "/v1/attestations"} <= set(requests)
    for number in range(1, len(requests) + 1):
        for heard in (False, True):
            site.begin()
            site.service.at, site.service.heard = number, heard
            process = site.start()
            site.service.victims.put(process.pid or 0)
            assert site.ended(process) == -signal.SIGKILL
            assert site.service.asked == requests[:number]
            site.check()
            site.again()


def test_killed_before_each_of_its_writes(site: Site) -> None:
    assert site.ended(site.start()) == 0
    writes = int((site.directory / "told").read_text())
    assert writes > 8
    for number in range(1, writes + 1):
        site.begin()
        assert site.ended(site.start(number)) == -signal.SIGKILL
        site.check()
        site.again()


NAMES = ("ak.recipe", "enrollment.json", "last.json", "logs.json")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rest", [0.0, 0.5, None], ids=["empty", "half", "gone"])
def test_a_file_that_was_cut_short_or_lost_is_made_anew(site: Site, name: str, rest: float | None) -> None:
    """No write of ours leaves such a file; a filesystem that lost its journal may."""
    site.agent("join", site.service.url)
    path = site.directory / "state" / name
    if rest is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: int(rest * path.stat().st_size)])
    site.again()
    assert path.stat().st_size > 0


def test_all_of_them_at_once_too(site: Site) -> None:
    site.agent("join", site.service.url)
    for path in (site.directory / "state").iterdir():
        path.write_bytes(b"")
    site.again()


DIE_WITH_ALL = """
import os, signal, sys
from contextlib import ExitStack
from pathlib import Path
from attestd.agent.machine import opened
from attestd.agent.state import State
tcti, directory = sys.argv[1], Path(sys.argv[2])
with opened(tcti, directory) as device, ExitStack() as stack:
    for _ in range(3):
        stack.enter_context(device.ak(State(directory).recipe()))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ag_7_a_tpm_that_a_killed_agent_left_full_is_joined(site: Site) -> None:
    site.agent("join", site.service.url)
    command = [sys.executable, "-c", DIE_WITH_ALL, site.tpm.tcti, str(site.directory / "state")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(leftovers(site.tpm)["transient"]) == 3
    site.again()


def test_what_was_being_written_when_the_power_went_is_swept(site: Site) -> None:
    state = site.directory / "state"
    site.agent("join", site.service.url)
    old, new, other = (state / name for name in (".ak.recipe." + "ab" * 8, ".x." + "cd" * 8, ".profile"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    site.again()
    assert not old.exists()
    # Somebody may be writing it now, and this is nobody's draft.
    assert new.exists()
    assert other.exists()


def test_another_machines_file_makes_no_second_device(site: Site, tmp_path: Path) -> None:
    site.agent("join", site.service.url)
    path = site.directory / "state" / "enrollment.json"
    members = json.loads(path.read_text())
    path.write_text(json.dumps(members | {"state": "pending"}))
    site.again()
    assert json.loads(path.read_text())["state"] == "active"
