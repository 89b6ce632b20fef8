"""A service that echoes, behind the real web layer. As a program it serves; `Running` starts and stops that.

It implements the seam that the web layer names (`attestd.web.seam.WebService`) and keeps what it was told to
refuse as JSON lines in a file beside its configuration.
"""

import hashlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attestd.config import Config, load_config
from attestd.limits import RateLimits
from attestd.protocol import Base64, Body
from attestd.store.errors import StoreUnavailable
from attestd.web.application import create_web
from attestd.web.listeners import Listener, listeners_of
from attestd.web.routes import Verb
from attestd.web.server import Parts, serve
from attestd.wire import Problem, b64encode

ROOT = Path(__file__).parents[3]
DEVICE = "ab" * 32
BODY_CAP = 64 * 1024
LARGE_CAP = 1024 * 1024


class EchoBody(Body):
    """One member of each kind that the protocol has."""

    number: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: Base64 = b""
    text: Annotated[str, Field(max_length=2 * 1024 * 1024)] = ""


@dataclass(frozen=True)
class Published:
    body: bytes
    etag: str


class EchoService:
    """What the web layer needs of a service, and nothing else."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.limits = RateLimits(config.limits.unproven_per_second, config.limits.device_per_minute)
        self._folder = config.path.parent
        self._lock = threading.Lock()
        self._note("started")

    def _note(self, word: str) -> None:
        with self._lock, (self._folder / "life").open("a", encoding="utf-8") as life:
            life.write(word + "\n")

    def refuse(self, problem: Problem, *, now: int, request_id: str, source: str, path: str) -> None:
        if problem.cause == "unrecordable":
            raise StoreUnavailable("the disk is full")
        told = {
            "code": problem.code,
            "cause": problem.cause,
            "request_id": request_id,
            "source": source,
            "path": path,
        }
        with self._lock, (self._folder / "refused").open("a", encoding="utf-8") as audit:
            audit.write(json.dumps(told) + "\n")

    def unsafe_modes(self, *, now: int) -> tuple[str, ...]:
        return self.config.unsafe_modes()

    def ready(self, *, now: int) -> Mapping[str, bool]:
        return {"store": not (self._folder / "broken").exists(), "keys": True}

    def documents(self) -> Mapping[str, Callable[[int], Published]]:
        body = b'{"keys":[]}'
        made = Published(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        return {"/.well-known/jwks.json": lambda now: made}

    def maintain(self, now: int) -> None:
        self._note("maintained")

    def close(self) -> None:
        self._note("closed")


def echo(service: EchoService, body: EchoBody, *, now: int, request_id: str) -> dict[str, Any]:
    """What came in; or, by the text, one of the ways in which a verb ends."""
    match body.text:
        case "raise":
            raise RuntimeError("a secret that must not leave")
        case "store":
            raise StoreUnavailable("the database is locked")
        case "unrecordable":
            raise Problem("conflict", "Refused, but it cannot be recorded.", cause="unrecordable")
        case "findings":
            found = {
                "code": "pcr_unexpected",
                "subject": "pcr7",
                "expected": ["sha256:00"],
                "found": "sha256:ff",
            }
            raise Problem("posture_rejected", "Not accepted.", findings=[found], pointer="/pcrs/sha256/7")
        case "recorded":
            problem = Problem("device_banned", "Banned.", cause="banned")
            problem.recorded, problem.device_id = True, DEVICE
            raise problem
        case "unknown_device" | "bad_quote":
            raise Problem("attestation_failed", body.text, pointer="/quote", cause=body.text)
        case "slow":
            time.sleep(1.0)
    return {"number": body.number, "data": b64encode(body.data), "length": len(body.text)}


VERBS = (
    Verb("/v1/echo", EchoBody, echo, "none: it echoes", "Echo."),
    Verb("/v1/proven", EchoBody, echo, "none: it echoes", "Echo as if proven.", status=200, proves=True),
    Verb("/v1/large", EchoBody, echo, "none: it echoes", "Echo much.", cap="attestation_body"),
)


def run(config_file: str, client_ca: str | None) -> int:
    config = load_config(Path(config_file), {})
    listeners = listeners_of(config)
    if client_ca is not None:
        ca = Path(client_ca).read_text(encoding="ascii")
        tls = config.tls
        listeners += (Listener(config.host, config.port + 1, tls.certificate, tls.key, ca),)
    return serve(config, Parts(EchoService, lambda s, m: create_web(s, VERBS, metrics=m)), listeners)


def free_port() -> int:
    """A port of loopback whose successor is free as well."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return int(port)


class Running:
    """The echo service in a process of its own, on loopback."""

    def __init__(
        self,
        folder: Path,
        *,
        toml: str = "",
        limits: str = "",
        client_ca: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "attestd.toml"
        self.config.write_text(
            f'trust_domain = "example.org"\nlisten = "127.0.0.1:{self.port}"\n{toml}\n[limits]\n'
            f"body = {BODY_CAP}\nattestation_body = {LARGE_CAP}\n{limits or 'unproven_per_second = 0'}\n",
            encoding="utf-8",
        )
        self.stderr = (folder / "stderr").open("wb")
        command = [sys.executable, __file__, str(self.config)]
        if client_ca is not None:
            command.append(str(client_ca))
        environ = {**(environ or {}), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=self.stderr, env=environ)

    def __enter__(self) -> "Running":
        self.await_listening()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def await_listening(self) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            life = self.folder / "life"
            if life.exists() and life.read_text().count("started") >= 2:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                        return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the service did not start: {self.log()[-2000:]}")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(12)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.stderr.close()

    def log(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def access(self, request_id: str) -> list[dict[str, Any]]:
        """The access lines of a request; they are written after the answer, so wait for the first."""
        end = time.monotonic() + 2
        while time.monotonic() < end:
            lines = [json.loads(line) for line in self.log().splitlines() if request_id in line]
            found = [line for line in lines if line["event"] == "request"]
            if found:
                return found
            time.sleep(0.01)
        return []

    def life(self) -> list[str]:
        return (self.folder / "life").read_text(encoding="utf-8").split()

    def refused(self) -> list[dict[str, Any]]:
        path = self.folder / "refused"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None, *, timeout: float = 10
    ) -> "Answer":
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request(
            "POST", path, raw, {"Content-Type": "application/json", **(headers or {})}, timeout
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
    ) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
