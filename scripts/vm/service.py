"""What runs on the host? The service, its operator, and a resource that asks about tokens."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.resource.credentials import ByKey
from attestd.resource.new_key import new_key
from scripts.demonstration.claims import Disappointed
from scripts.vm.tls import Tls, make_tls

HOST, DOMAIN = "attestd.example.org", "example.org"
URL = f"https://{HOST}"
AUDIENCE = "https://ledger.example.org"

ATTESTD = Path(sys.executable).with_name("attestd")
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """A directory that serves, and who works with it."""

    directory: Path
    port: int
    tls: Tls

    def operate(self, *words: str, status: int = 0) -> str:
        """What `attestd …` writes for the operator; it must end with this status."""
        ended = subprocess.run(
            [ATTESTD, *words],
            env=os.environ | {"ATTESTD_CONFIG": str(self.directory / "attestd.toml")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if ended.returncode != status:
            said = (ended.stderr or ended.stdout).strip()
            raise Disappointed(f"attestd {' '.join(words)} ended with {ended.returncode}: {said}")
        return ended.stdout

    def devices(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.operate("device", "list", "--json").splitlines()]

    def known(self) -> frozenset[str]:
        """The identifiers of all devices."""
        return frozenset(str(each["device_id"]) for each in self.devices())

    def apply(self, policy: str) -> None:
        path = self.directory / "gateway.toml"
        path.write_text(policy)
        self.operate("policy", "apply", str(path))

    def is_active(self, token: str) -> bool:
        """What the resource that a token is for is told about it."""
        resource = ByKey(AUDIENCE, self.directory / "resource.pem")
        form = {"token": token, **resource.parameters(URL, now=time.time())}
        answer = json.loads(self._ask("/oauth/introspect", urllib.parse.urlencode(form).encode()))
        return bool(answer["active"])

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", body)
        context = ssl.create_default_context(cafile=str(self.tls.root))
        with urllib.request.urlopen(request, timeout=_PATIENCE, context=context) as answer:
            return bytes(answer.read())

    def await_ready(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        end = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < end:
            try:
                self._ask("/readyz")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise Disappointed(f"the service did not start: {log.read_text(errors='replace').strip()[-500:]}")


@contextmanager
def serving(directory: Path, maker: x509.Certificate) -> Iterator[Service]:
    """A new service that trusts this maker of TPMs, until the end of the context."""
    service = _set_up(directory, maker)
    log = directory / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ATTESTD, "serve", "--config", str(directory / "attestd.toml")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        service.await_ready(process, log)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _set_up(directory: Path, maker: x509.Certificate) -> Service:
    service = Service(directory, _free_port(), make_tls(directory.parent / "tls", HOST))
    service.operate("init", str(directory), "--trust-domain", DOMAIN, "--listen", f"127.0.0.1:{service.port}")
    (directory / "resource.jwks").write_text(new_key(directory / "resource.pem"))
    path = directory / "attestd.toml"
    configuration: Any = tomlkit.parse(path.read_text())
    configuration["external_url"] = URL
    configuration["tls"] |= {"certificate": str(service.tls.chain), "key": str(service.tls.key)}
    resources = tomlkit.aot()
    resources.append(tomlkit.item({"audience": AUDIENCE, "jwks": f"file:{directory}/resource.jwks"}))
    configuration["resource"] = resources
    path.write_text(tomlkit.dumps(configuration))
    (directory / "maker.pem").write_bytes(maker.public_bytes(Encoding.PEM))
    service.operate("ek-roots", "import", str(directory / "maker.pem"), "--yes")
    return service


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
