"""The service starts once it can serve, finishes what it has begun, ends within ten seconds of SIGTERM."""

import http.client
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

from tests.attestd.web.echo_service import Running
from tests.attestd.web.raw import GOOD, HEAD


def test_sigterm_ends_it_at_once_when_nothing_is_going_on(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        time.sleep(1.2)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 3
        life = running.life()
    assert life.count("maintained") >= 1
    assert life[-1] == "closed"


def test_sigterm_lets_a_request_finish_and_cuts_those_who_dawdle(tmp_path: Path) -> None:
    with (
        Running(tmp_path) as running,
        socket.create_connection(("127.0.0.1", running.port)) as idle,
        socket.create_connection(("127.0.0.1", running.port)) as slow,
    ):
        idle.sendall(GOOD)
        assert idle.recv(65536).startswith(b"HTTP/1.1 201")
        slow.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(running.post("/v1/echo", {"text": "slow"}).status)
        )
        asking.start()
        time.sleep(0.3)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 10
        asking.join()
        assert answers == [201]
        assert idle.recv(1) == b""


def test_sighup_without_tls_does_no_harm(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        running.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert running.request("GET", "/healthz").status == 200
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2):
            running.process.send_signal(number)
        time.sleep(0.3)
        assert running.life().count("started") == 2, "once to see whether it can, once in the worker"


def test_a_start_that_cannot_serve_says_so_and_ends(tmp_path: Path) -> None:
    with socket.socket() as taken:
        running = Running(tmp_path)
        running.stop()
        taken.bind(("127.0.0.1", running.port))
        taken.listen()
        running = Running(tmp_path, toml='[tls]\ncertificate = "nothing.pem"\nkey = "nothing.key"')
        assert running.process.wait(10) != 0
        running.stderr.close()
    assert "nothing.pem" in running.log()


def test_several_workers_count_together(tmp_path: Path) -> None:
    """With PostgreSQL several processes serve; the echo service opens no database."""
    with Running(tmp_path, toml='database = "postgresql://nobody@localhost/nothing"\nworkers = 2') as running:
        end = time.monotonic() + 5
        while running.life().count("started") < 3 and time.monotonic() < end:
            time.sleep(0.02)
        for _ in range(40):
            assert running.post("/v1/echo", {}).status == 201
        time.sleep(0.1)
        text = running.request("GET", "/metrics").body.decode()
        assert 'attestd_requests_total{code="",route="/v1/echo",status="201"} 40.0' in text


def test_ds_6_a_source_past_its_limit_is_told_when_to_come_back(tmp_path: Path) -> None:
    with Running(tmp_path, limits="unproven_per_second = 5") as running:
        answers = [running.post("/v1/echo", {}, {"X-Forwarded-For": f"192.0.2.{i}"}) for i in range(20)]
        statuses = [answer.status for answer in answers]
        assert statuses[:5] == [201] * 5
        assert statuses.count(429) >= 10
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.json["code"] == "slow_down"
        assert int(refused.headers["retry-after"]) >= 1
        time.sleep(1.1)
        for _ in range(20):
            assert running.post("/v1/proven", {}).status == 200, "proven requests are not counted"
        assert running.post("/v1/proven", {"text": "recorded"}).status == 403


def test_it_tells_systemd_when_it_is_ready(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(10)
        with Running(tmp_path, environ={"NOTIFY_SOCKET": str(address)}) as running:
            assert b"READY=1" in systemd.recv(4096)
            assert running.request("GET", "/healthz").status == 200


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        children = (
            Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        )
        os.kill(int(children[0]), signal.SIGKILL)
        end = time.monotonic() + 10
        while running.life().count("started") < 3:
            assert time.monotonic() < end
            time.sleep(0.05)
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
        connection.request("GET", "/healthz")
        assert json.loads(connection.getresponse().read())["status"] == "ok"
        connection.close()
