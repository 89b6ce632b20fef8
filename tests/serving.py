"""A service as it runs for users, `attestd serve` in a process of its own on loopback, and the agent's
command line on a machine beside it."""

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.cli.main import main
from tests.attestd.web.certificates import Pair
from tests.deployment import configure, run
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import shared_test_ca

ATTESTD = Path(sys.executable).with_name("attestd")
"""The command as it is installed."""

FRESH = f"""
name = "fresh"
disclose = "findings"
allow_unmeasured = [0, 7]
[pcrs]
0 = ["sha256:{"00" * 32}"]
7 = ["sha256:{"00" * 32}"]
[[grant]]
agent = "telemetry"
formats = ["x509-svid", "wit-svid"]
ttl = "10m"
[[grant]]
agent = "builder"
formats = ["x509-svid", "wit-svid", "jwt-svid"]
ttl = "5m"
key = "any"
audiences = ["https://a.example.org", "https://b.example.org"]
""" + "".join(
    f'[[seal]]\nname = "{name}"\nkind = "{kind}"\npcrs = [0, 7]\n'
    for name, kind in {
        "disk": "secret-32",
        "signer": "ec-p256",
        "vault": "rsa-2048",
        "mac": "hmac-sha256",
    }.items()
)
"""Accepts a software TPM that has measured nothing."""


class Serving:
    """The service; leaving the context ends it. Software TPMs under this process's root are admitted at once,
    those of other makers wait for approval."""

    def __init__(
        self,
        directory: Path,
        *,
        policies: Sequence[str] = (FRESH,),
        root: x509.Certificate | None = None,
        tls: Pair | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        run("init", str(directory), "--trust-domain", "example.org", "--listen", f"127.0.0.1:{self.port}")
        settings = {"external_url": f'"{self.url}"', "auto_admit": "true", "tofu": "true"}
        settings |= {"unproven_per_second": "0", "device_per_minute": "0"}
        if tls is not None:
            settings |= {"certificate": f'"{tls.certificate}"', "key": f'"{tls.key}"'}
        configure(directory, settings)
        trusted = shared_test_ca().root if root is None else root
        (directory / "ek-roots" / "root.pem").write_bytes(trusted.public_bytes(Encoding.PEM))
        files = [directory / f"policy-{number}.toml" for number in range(len(policies))]
        for path, text in zip(files, policies, strict=True):
            path.write_text(text)
        if files:
            self.operate("policy", "apply", *map(str, files))

    def operate(self, *arguments: str, status: int = 0) -> Result:
        """`attestd NOUN VERB …` of the operator; fails the test when it ends otherwise."""
        return run(*arguments, "--config", str(self.directory / "attestd.toml"), status=status)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that a listing prints with `--json`."""
        return [json.loads(line) for line in self.operate(*arguments, "--json").stdout.splitlines()]

    def device(self, device_id: str) -> dict[str, Any]:
        return self.listed("device", "show", device_id)[0]

    def get(self, path: str) -> dict[str, Any]:
        """A published document."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        members: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return members

    def __enter__(self) -> "Serving":
        command = [str(ATTESTD), "serve", "--config", str(self.directory / "attestd.toml")]
        self._log = (self.directory / "log").open("wb")
        self._process = subprocess.Popen(command, stderr=self._log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise AssertionError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(15)
        self._log.close()

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        if self.url.startswith("https"):
            # Only whether it is there; what its certificate is worth is the tests' question.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@dataclass(frozen=True)
class Agent:
    """`attestd agent VERB` with one TPM and one state directory."""

    tpm: SoftwareTpm
    state: Path
    url: str

    def __call__(self, verb: str, *arguments: str | Path, status: int = 0) -> Result:
        """Fails the test when it ends with another status."""
        given = ["--tpm", self.tpm.tcti, "--state", self.state, *arguments]
        result = CliRunner().invoke(main, ["agent", verb, *map(str, given)])
        assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
        return result

    def enroll(self, *arguments: str | Path, status: int = 0) -> Result:
        return self("enroll", "--server", self.url, *arguments, status=status)

    def attest(self, out: Path, *arguments: str | Path, status: int = 0) -> Result:
        return self("attest", "--out", out, *arguments, status=status)

    @property
    def device_id(self) -> str:
        kept: Mapping[str, Any] = json.loads((self.state / "enrollment.json").read_text())
        return str(kept["device_id"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
