"""The shipped nginx configuration, run by Debian's nginx: slow and lying clients end there."""

import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attestd.web.certificates import Authority
from tests.attestd.web.echo_service import ROOT, Running, free_port
from tests.attestd.web.raw import GOOD, HEAD, Reply, read
from tests.attestd.web.test_hostile_bytes import AMBIGUOUS

NGINX = "/usr/sbin/nginx"
MIB = 1 << 20


class Front:
    """nginx with the shipped file, its addresses and certificate put in place; one process, in a folder."""

    def __init__(self, folder: Path, behind: Running) -> None:
        authority = Authority(folder)
        pair = authority.issue("front")
        self.port = free_port()
        self.behind = behind
        self.context = ssl.create_default_context(cafile=str(authority.pem))
        shipped = (ROOT / "scripts/nginx/attestd.conf").read_text(encoding="utf-8")
        for ours, theirs in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("    listen [::]:443 ssl;\n", ""),
            ("server 127.0.0.1:8440;", f"server 127.0.0.1:{behind.port};"),
            ("/etc/attestd/tls/certificate.pem", str(pair.certificate)),
            ("/etc/attestd/tls/key.pem", str(pair.key)),
        ):
            assert ours in shipped
            shipped = shipped.replace(ours, theirs)
        (folder / "attestd.conf").write_text(shipped, encoding="utf-8")
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = folder / "nginx.conf"
        whole.write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; {temporary} include {folder}/attestd.conf; }}\n",
            encoding="utf-8",
        )
        self.process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(whole), "-e", str(folder / "error.log")],
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self.process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def connect(self) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return self.context.wrap_socket(sock, server_hostname="127.0.0.1")

    def exchange(self, data: bytes, wait: float) -> Reply:
        started = time.monotonic()
        with self.connect() as sock:
            with contextlib.suppress(OSError):
                sock.sendall(data)
            got, closed = read(sock, wait)
        return Reply(got, closed, time.monotonic() - started)

    def post(
        self, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=10)
        connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        return answer.status, told


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    toml = 'external_url = "https://127.0.0.1"\n[tls]\nbehind_proxy = true'
    with Running(tmp_path_factory.mktemp("behind"), toml=toml) as behind:
        running = Front(tmp_path_factory.mktemp("front"), behind)
        yield running
        running.stop()


def served(front: Front) -> int:
    """How many requests attestd itself has answered."""
    time.sleep(0.03)
    return sum('"event": "request"' in line for line in front.behind.log().splitlines())


def test_a_request_comes_through_with_its_source(front: Front) -> None:
    status, told = front.post("/v1/echo", b'{"number":7}', {"X-Forwarded-For": "203.0.113.9"})
    assert (status, told["number"]) == (201, 7)
    status, told = front.post("/v1/echo", b'{"number":-7}', {"X-Forwarded-For": "203.0.113.9"})
    assert (status, told["code"]) == (400, "malformed")
    assert front.behind.access(str(told["request_id"]))[0]["source"] == "127.0.0.1"


# nginx itself is lenient with these, but it writes anew what it passes on; the rest it or attestd refuses.
REWRITTEN = {
    "bare_lf",
    "bare_lf_in_head",
    "chunk_extension",
    "expectation",
    "no_version",
    "te_tab_folded",
    "trailers",
    "two_spaces",
}


@pytest.mark.parametrize("name", sorted(AMBIGUOUS))
def test_ht_10_no_ambiguity_passes_the_proxy(front: Front, name: str) -> None:
    before = served(front)
    reply = front.exchange(AMBIGUOUS[name], wait=1)
    assert served(front) - before <= 1, "one request was read as two"
    assert len(reply.statuses) <= 1
    assert name in REWRITTEN or all(status >= 400 for status in reply.statuses)


def test_ht_10_the_healthy_twin_passes_the_proxy(front: Front) -> None:
    chunked = HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"n\r\n9\r\number":7}\r\n0\r\n\r\n'
    assert front.exchange(GOOD + chunked, wait=0.5).statuses == [201, 201]


def test_ht_3_slow_clients_end_at_the_proxy(front: Front) -> None:
    """Eighty who never finish: none of them reaches attestd, and the others do not notice."""
    before = served(front)
    slow = [front.connect() for _ in range(80)]
    try:
        for index, sock in enumerate(slow):
            sock.sendall(HEAD + b"Content-Length: 500\r\n\r\n{" if index % 2 else b"POST /v1/echo HT")
        end, taken = time.monotonic() + 3, []
        while time.monotonic() < end:
            for sock in slow[1::2]:
                sock.send(b" ")
            started = time.monotonic()
            assert front.post("/v1/echo", b"{}")[0] == 201
            taken.append(time.monotonic() - started)
            time.sleep(0.1)
        assert max(taken) < 1
        assert served(front) - before == len(taken)
    finally:
        for sock in slow:
            sock.close()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (HEAD + b"Content-Length: %d\r\n\r\n" % (4 * MIB + 1), 413, "too_large"),
        (b"GET /" + b"y" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 413, "too_large"),
        (b"nonsense\r\n\r\n", 400, "malformed"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, "malformed"),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
        (b"TRACE /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
    ],
)
def test_the_proxys_own_refusals_are_problems_too(front: Front, data: bytes, status: int, code: str) -> None:
    reply = front.exchange(data, wait=0.5)
    head, _, body = reply.data.partition(b"\r\n\r\n")
    assert reply.statuses == [status]
    assert b"application/problem+json" in head
    assert b"no-store" in head
    assert re.search(rb"nginx/[0-9]", head) is None
    told = json.loads(body)
    assert (told["code"], told["status"]) == (code, status)
    assert told["request_id"]


@pytest.mark.parametrize("target", ["//v1/echo", "/v1/%65cho", "/v1/echo/", "/v1/../v1/echo", "/v1/echo;x"])
def test_ht_8_a_path_has_one_writing_behind_the_proxy_too(front: Front, target: str) -> None:
    data = GOOD.replace(b" /v1/echo ", f" {target} ".encode())
    assert front.exchange(data, wait=0.3).statuses == [404]


def test_operators_pages_are_for_this_machine(front: Front) -> None:
    shipped = (ROOT / "scripts/nginx/attestd.conf").read_text(encoding="utf-8")
    assert re.search(
        r"\(healthz\|readyz\|metrics\)\$ \{\s+allow 127.0.0.1;\s+allow ::1;\s+deny all;", shipped
    )
    assert front.exchange(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", wait=0.3).statuses == [200]
    assert front.exchange(b"GET /%68ealthz HTTP/1.1\r\nHost: x\r\n\r\n", wait=0.3).statuses == [404]


def test_a_service_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    toml = 'external_url = "https://127.0.0.1"\n[tls]\nbehind_proxy = true'
    (tmp_path / "behind").mkdir()
    (tmp_path / "front").mkdir()
    with Running(tmp_path / "behind", toml=toml) as behind:
        front = Front(tmp_path / "front", behind)
    try:
        status, told = front.post("/v1/echo", b"{}")
        assert (status, told["code"]) == (503, "unavailable")
    finally:
        front.stop()
