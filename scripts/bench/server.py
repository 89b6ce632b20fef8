"""A service as it runs for users, and an empty application beside it that shows what asking costs at all."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.attester import Machine, TestMaker, activation_body, enrollment_body
from tests.deployment import configure, policy_for, run

_EMPTY = """
from flask import Flask, request
app = Flask("empty", static_folder=None)

@app.route("/empty", methods=["GET", "POST"])
def empty():
    request.get_data()
    return b"{}", 200, {"Content-Type": "application/json"}
"""


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        # What a client's kernel may hold back is no cost of the server.
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def json(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        status, raw = self.post(path, json.dumps(body).encode())
        return status, json.loads(raw)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def attestd_server(directory: Path) -> Iterator[tuple[int, TestMaker]]:
    """`attestd serve` on SQLite with full durability, one trusted maker, no rate limits; its port and the
    maker."""
    port, maker = free_port(), TestMaker.create()
    run("init", str(directory), "--trust-domain", "example.org", "--listen", f"127.0.0.1:{port}")
    configure(directory, {"auto_admit": "true", "unproven_per_second": "0", "device_per_minute": "0"})
    (directory / "ek-roots" / "maker.pem").write_bytes(maker.pem)
    command = [sys.executable, "-c", "from attestd.cli.main import main; main()", "serve"]
    with _process([*command, "--config", str(directory / "attestd.toml")], port):
        yield port, maker


@contextmanager
def empty_server(directory: Path, *more: str) -> Iterator[int]:
    """An empty Flask view behind gunicorn with the same kind of worker and as many threads; `more` are
    options of gunicorn."""
    (directory / "empty.py").write_text(_EMPTY)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
    options = ["--threads", "8", "--keep-alive", "75", "--chdir", str(directory), "--log-level", "error"]
    with _process([*command, *options, *more, "empty:app"], port):
        yield port


def enrolled(client: Client, maker: TestMaker, directory: Path, server: str, *, ak: str = "p256") -> Machine:
    """A machine that the policy in force accepts."""
    machine = Machine.create(maker, ak=ak)
    status, begun = client.json("/v1/enrollments", enrollment_body(machine))
    assert status == 201, begun
    status, told = client.json("/v1/activations", activation_body(machine, begun, server))
    assert status == 201, told
    policy = directory / "bench.toml"
    policy.write_text(policy_for(machine))
    run("policy", "apply", str(policy), "--config", str(directory / "attestd.toml"))
    return machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not come up")
