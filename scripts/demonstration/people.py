"""Who types the commands? An operator and machines, each in a directory of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.demonstration.claims import Disappointed, claim
from scripts.demonstration.display import Display

_ATTESTD = Path(sys.executable).with_name("attestd")
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Person:
    """Runs `attestd …` in `home` and shows what was typed. `environment` is what they exported before."""

    name: str
    home: Path
    display: Display
    environment: dict[str, str] = field(default_factory=dict)

    def runs(self, *words: str, status: int = 0) -> "Told":
        """The command's output; it must end with this status."""
        self.display.command(self.name, ("attestd", *words))
        ended = subprocess.run(
            [_ATTESTD, *words],
            cwd=self.home,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
        )
        said = ended.stderr.decode(errors="replace").strip()
        claim(
            ended.returncode == status,
            f"attestd {words[0]} should end with {status}, not {ended.returncode}: {said}",
        )
        return Told(ended.stdout, said)

    @contextmanager
    def serves(self, url: str) -> Iterator[None]:
        """`attestd serve` in the background, until the context ends."""
        self.display.command(self.name, ("attestd", "serve"))
        with (self.home / "log").open("wb") as log:
            process = subprocess.Popen(
                [_ATTESTD, "serve"],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        try:
            _await(process, url, self.home / "log")
            yield
        finally:
            process.terminate()
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True, slots=True)
class Told:
    """What a command wrote: to standard output, and, trimmed, for people."""

    output: bytes
    said: str

    @property
    def lines(self) -> list[str]:
        return self.output.decode().splitlines()


def published(url: str) -> Any:
    """A JSON document of the service."""
    with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
        return json.load(answer)


def _await(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            published(f"{url}/readyz")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
        else:
            return
    raise Disappointed(f"the service did not start: {log.read_text(errors='replace').strip()[-500:]}")


def await_port(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Until somebody listens there."""
    end = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise Disappointed(f"nothing listens on {port}: {log.read_text(errors='replace').strip()[-500:]}")
