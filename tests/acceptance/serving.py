"""A service in processes of its own: `attestd serve` over a prepared world, on free ports of loopback.

The world's own service prepares devices and credentials in the same database; what is asked for comes in
through the running one. `external_url` stays the world's: only that is ever compared."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.attestd.oauth.agents import Agent
from tests.attestd.oauth.world import Reply, World
from tests.attestd.web.certificates import Authority
from tests.attestd.web.echo_service import free_port
from tests.deployment import configure

FORM = "application/x-www-form-urlencoded"
_SERVE = "from attestd.cli.main import main; main()"


@dataclass
class Serving:
    """The running service. Ports of the listener and of the one for clients with certificates."""

    world: World
    port: int = field(default_factory=free_port)
    authority: Authority | None = None
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, world: World, *, mtls: bool = False) -> "Serving":
        """Configured, not started. The mTLS listener is one port above the other."""
        made = cls(world)
        folder = world.deployment.directory
        settings = {"listen": f'"127.0.0.1:{made.port}"'}
        if mtls:
            made.authority = Authority(folder)
            pair = made.authority.issue("server")
            settings |= {
                "certificate": f'"{pair.certificate}"',
                "key": f'"{pair.key}"',
                "mtls_listen": f'"127.0.0.1:{made.port + 1}"',
            }
        configure(folder, settings)
        return made

    def __enter__(self) -> "Serving":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)

    def start(self) -> None:
        folder = self.world.deployment.directory
        with (folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, "serve", "--config", str(folder / "attestd.toml")],
                stderr=stderr,
                cwd=Path(__file__).parents[2],
            )
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and self._ready():
                    return
            time.sleep(0.05)
        raise AssertionError(f"the service did not start: {self.log()[-2000:]}")

    def stop(self, how: signal.Signals) -> None:
        """With SIGTERM or, as if the power had gone, SIGKILL of every process of it."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        if how is signal.SIGKILL:
            process.send_signal(signal.SIGSTOP)  # it starts no new ones
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
        process.send_signal(how)
        process.wait(15)

    def log(self) -> str:
        return (self.world.deployment.directory / "stderr").read_text()

    # --- requests -----------------------------------------------------------------------------------------

    def open(self, agent: Agent | None = None) -> http.client.HTTPConnection:
        """A connection; with an agent, to the listener for clients with certificates, showing that
        agent's."""
        if self.authority is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        context = ssl.create_default_context(cafile=str(self.authority.pem))
        if agent is None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        chain = self.world.deployment.directory / f"{agent.name}.chain.pem"
        private = agent.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain.write_bytes(private + agent.text.encode())
        context.load_cert_chain(chain)
        return http.client.HTTPSConnection("127.0.0.1", self.port + 1, timeout=20, context=context)

    def post(
        self,
        path: str,
        form: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        *,
        connection: http.client.HTTPConnection | None = None,
    ) -> Reply:
        opened = connection or self.open()
        kept = {name: value for name, value in form.items() if value is not None}
        opened.request("POST", path, urlencode(kept, doseq=True), {"Content-Type": FORM, **(headers or {})})
        answer = opened.getresponse()
        body = answer.read()
        if connection is None:
            opened.close()
        return Reply(answer.status, json.loads(body) if body else {}, answer.headers)

    def get(self, path: str) -> dict[str, Any]:
        opened = self.open()
        opened.request("GET", path)
        told: dict[str, Any] = json.loads(opened.getresponse().read())
        opened.close()
        return told

    def _ready(self) -> bool:
        try:
            return self.get("/readyz").get("status") == "ready"
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return False


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    listed = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]
