"""`attestd agent run` as a process of its own on one machine."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving import ATTESTD, Agent

PLAIN = f"""
[[workload]]
agent = "builder"
formats = ["x509-svid", "wit-svid", "jwt-svid"]
audiences = ["https://a.example.org"]
user = ["{os.getuid()}"]
[[workload]]
agent = "telemetry"
key = "tpm"
user = ["{os.getuid()}"]
"""
"""Two workloads of the policy `FRESH`."""


@dataclass
class Running:
    """The agent's process; leaving the context ends it. `workloads` is the settings' second half."""

    agent: Agent
    directory: Path
    workloads: str = PLAIN
    environment: Mapping[str, str] = field(default_factory=dict)
    server: str | None = None
    """Where to enrol; None: as the state says."""

    def __enter__(self) -> "Running":
        self.directory.mkdir(exist_ok=True, mode=0o755)
        self.configure(self.workloads)
        self.log = self.directory / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stderr=log, env=os.environ | dict(self.environment)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def command(self) -> list[str]:
        return [str(ATTESTD), "agent", "run", "--config", str(self.directory / "agent.toml")]

    @property
    def socket(self) -> Path:
        return self.directory / "workload.sock"

    def configure(self, workloads: str) -> None:
        server = "" if self.server is None else f'server = "{self.server}"\n'
        head = f'{server}tpm = "{self.agent.tpm.tcti}"\nstate = "{self.agent.state}"\n'
        (self.directory / "agent.toml").write_text(head + 'socket = "workload.sock"\n' + workloads)

    def standing(self) -> dict[str, Any]:
        """What it last told; empty before it told anything."""
        try:
            told: dict[str, Any] = json.loads((self.agent.state / "standing.json").read_text())
        except FileNotFoundError:
            return {}
        return told if told["pid"] == self.process.pid else {}

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> dict[str, Any]:
        """Its standing, as soon as that is so; fails the test when it takes too long."""
        end = time.monotonic() + seconds
        while not ((told := self.standing()) and holds(told)):
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError((self.process.poll(), told, self.log.read_text()[-2000:]))
            time.sleep(0.01)
        return told

    def identity(self) -> dict[str, Any]:
        """Its standing when it has its identity."""
        return self.until(lambda told: bool(told["identity"]))

    def end(self, number: int = signal.SIGTERM) -> float:
        """Seconds until it had ended, which it must with status 0."""
        start = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(20) == 0, self.log.read_text()[-2000:]
        return time.monotonic() - start

    def kernel(self, name: str) -> int:
        """A number of /proc/PID/status."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise LookupError(name)
