"""`attestd doctor` asks the running service and says what to do about each fault."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.attestd.cli.conftest import Run

HEALTH = "/healthz"
READY = "/readyz"
DISCOVERY = "/.well-known/openid-configuration"

Answers = dict[str, tuple[int, dict[str, Any]]]


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def configuration(tmp_path: Path, port: int) -> Path:
    path = tmp_path / "attestd.toml"
    path.write_text(f'trust_domain = "example.org"\nlisten = "127.0.0.1:{port}"\n')
    return path


@pytest.fixture
def answering(port: int) -> Iterator[Callable[[Answers], None]]:
    """A service that gives these answers."""
    servers = []

    def start(answers: Answers) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.get(self.path, (404, {}))
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def good(port: int) -> Answers:
    return {
        HEALTH: (200, {"status": "ok", "unsafe": []}),
        READY: (200, {"status": "ready", "checks": {"store": True}}),
        DISCOVERY: (200, {"issuer": f"http://127.0.0.1:{port}"}),
    }


def test_a_good_service_has_no_fault(
    attestd: Run, configuration: Path, port: int, answering: Callable[[Answers], None]
) -> None:
    answering(good(port))
    told = attestd("doctor", "--config", configuration, "--json")
    assert told.exit_code == 0, told.output
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(line["level"], line["check"]) for line in lines] == [
        ("ok", "service"),
        ("ok", "readiness"),
        ("ok", "external_url"),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({HEALTH: (404, {})}, "is it attestd that listens there?"),
        ({READY: (503, {"detail": "Not ready: keys."})}, "keys: the keys directory differs"),
        ({READY: (503, {"detail": "Not ready: store, trust."})}, "store: is the database running?"),
        ({READY: (503, {"detail": "Not ready: store, trust."})}, "trust: a file in the trust store"),
        ({READY: (503, {"detail": "Not ready: policies."})}, "policies: a stored policy"),
        ({READY: (500, {})}, "the service's log says why"),
        ({DISCOVERY: (502, {})}, "does the proxy lead to us?"),
        ({DISCOVERY: (200, {"issuer": "https://other.example"})}, "is another service"),
    ],
)
def test_a_fault_is_told_with_what_to_do(
    attestd: Run,
    configuration: Path,
    port: int,
    answering: Callable[[Answers], None],
    change: Answers,
    said: str,
) -> None:
    answering(good(port) | change)
    told = attestd("doctor", "--config", configuration)
    assert told.exit_code == 1, told.output
    assert any(said in line for line in told.stdout.splitlines() if line.startswith("fault"))


def test_ad_6_unsafe_modes_of_the_running_service_are_told(
    attestd: Run, configuration: Path, port: int, answering: Callable[[Answers], None]
) -> None:
    answering(good(port) | {HEALTH: (200, {"unsafe": ["tofu"]})})
    told = attestd("doctor", "--config", configuration)
    assert told.exit_code == 0
    assert "warning  service        weakened by tofu; set tofu = false" in told.stdout


def test_a_service_that_does_not_answer_is_status_3(attestd: Run, configuration: Path) -> None:
    told = attestd("doctor", "--config", configuration)
    assert told.exit_code == 3
    assert "is `attestd serve` running" in told.stderr
    assert told.stderr.count("\n") == 1


def test_the_real_service_is_found_well(attestd: Run, tmp_path: Path, port: int) -> None:
    path = tmp_path / "srv" / "attestd.toml"
    made = attestd("init", path.parent, "--trust-domain", "example.org", "--listen", f"127.0.0.1:{port}")
    assert made.exit_code == 0
    code = "from attestd.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:
        try:
            deadline = time.monotonic() + 20
            while (told := attestd("doctor", "--config", path)).exit_code == 3:
                assert time.monotonic() < deadline, told.output
                time.sleep(0.05)
            assert told.exit_code == 0, told.output
        finally:
            service.terminate()
            assert service.wait(10) == 0
