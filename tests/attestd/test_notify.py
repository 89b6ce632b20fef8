"""systemd is told how the service is: when it is ready, that it lives, that it reloads, that it stops."""

import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.notify import Notifier
from tests.attestd.web.echo_service import Running

PID = 4711


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd opens one, and how NOTIFY_SOCKET names it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@attestd-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if name.startswith("/") else "\0" + name[1:])
        sock.settimeout(10)
        yield sock, name


def test_each_word_is_one_datagram(systemd: tuple[socket.socket, str]) -> None:
    sock, name = systemd
    notifier = Notifier.of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}, pid=PID)
    sent = [
        (notifier.ready("serving"), b"READY=1\nSTATUS=serving"),
        (notifier.ready(), b"READY=1"),
        (notifier.status("waits for an operator"), b"STATUS=waits for an operator"),
        (notifier.ping(), b"WATCHDOG=1"),
        (notifier.reloading(monotonic_us=12), b"RELOADING=1\nMONOTONIC_USEC=12"),
        (notifier.stopping("bye"), b"STOPPING=1\nSTATUS=bye"),
    ]
    for was_sent, expected in sent:
        assert was_sent
        assert sock.recv(4096) == expected


def test_a_status_stays_one_line_of_bounded_length(systemd: tuple[socket.socket, str]) -> None:
    """What a server answered may be in it: no line break may begin another assignment."""
    sock, name = systemd
    notifier = Notifier.of({"NOTIFY_SOCKET": name}, pid=PID)
    assert notifier.status("refused\nSTOPPING=1\r\0MAINPID=1\u2028X" + "é" * 1000)
    told = sock.recv(4096)
    assert told.startswith(b"STATUS=refused STOPPING=1 MAINPID=1 X")
    assert b"\n" not in told
    assert len(told.decode()) == len("STATUS=") + 400


@pytest.mark.parametrize("name", [None, "", "/", "@", "relative", "vsock:2:1234"])
def test_without_a_socket_of_systemd_nothing_is_sent_and_nothing_fails(name: str | None) -> None:
    environ = {"WATCHDOG_USEC": "1000000"} | ({} if name is None else {"NOTIFY_SOCKET": name})
    assert Notifier.of(environ, pid=PID) == Notifier(None, None)
    assert not Notifier.of(environ, pid=PID).ready("serving")


def test_a_socket_that_is_gone_or_full_does_not_stop_the_service(tmp_path: Path) -> None:
    gone = Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "gone")}, pid=PID)
    assert not gone.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "full"))
        full = Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "full")}, pid=PID)
        sent = [full.status("x" * 300) for _ in range(100_000 if full.ready() else 0)]
    assert sent[0]
    assert not sent[-1], "nobody reads, and still nobody waits"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(PID)}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_it_pings_twice_in_the_time_that_systemd_waits(
    environ: dict[str, str], interval: float | None
) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": "@nobody", **environ}, pid=PID)
    assert notifier.interval == interval
    if interval is None:
        assert not notifier.ping()


def _words(sock: socket.socket, until: bytes) -> list[bytes]:
    """Everything that is told, up to and with the datagram that begins with `until`."""
    told: list[bytes] = []
    while not told or not told[-1].startswith(until):
        told.append(sock.recv(4096))
    return told


def test_the_service_tells_of_its_whole_life(systemd: tuple[socket.socket, str], tmp_path: Path) -> None:
    sock, name = systemd
    with Running(tmp_path, environ={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000"}) as running:
        assert running.request("GET", "/healthz").status == 200
        told = _words(sock, b"WATCHDOG=1") + _words(sock, b"WATCHDOG=1")
        ready = next(one for one in told if b"STATUS=serving http" in one)
        assert ready.startswith(b"READY=1\n")
        running.process.send_signal(signal.SIGHUP)
        reload = _words(sock, b"READY=1")
        assert any(one.startswith(b"RELOADING=1\nMONOTONIC_USEC=") for one in reload)
        assert running.request("GET", "/healthz").status == 200
        assert running.stop() == 0
        assert b"STOPPING=1" in b"".join(_words(sock, b"STOPPING=1"))


def test_a_service_whose_loop_stands_still_does_not_ping(
    systemd: tuple[socket.socket, str], tmp_path: Path
) -> None:
    sock, name = systemd
    with Running(tmp_path, environ={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"}) as running:
        _words(sock, b"WATCHDOG=1")
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            sock.settimeout(2.5)
            with pytest.raises(TimeoutError):
                _words(sock, b"nothing that it says")
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        sock.settimeout(10)
        _words(sock, b"WATCHDOG=1")
