"""Clients that dawdle hold a socket for ten seconds and nobody else up."""

import contextlib
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.attestd.web.certificates import Authority
from tests.attestd.web.echo_service import Running
from tests.attestd.web.raw import GOOD, HEAD

CUT_SECONDS = 10
BOUND_SECONDS = 13


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=BOUND_SECONDS)


def _closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def dawdlers(port: int, count: int, first: bytes, rest: bytes) -> Iterator[list[float]]:
    """`count` clients who have sent `first` and drip `rest`; filled with how long each was borne."""
    stop, seconds = threading.Event(), []
    socks = [connect(port) for _ in range(count)]
    for sock in socks:
        sock.sendall(first)

    def run() -> None:
        borne = dict.fromkeys(socks, 0.0)
        started = time.monotonic()
        for byte in rest.ljust(80, b"\0"):
            if stop.wait(0.25):
                break
            for sock in [sock for sock, done in borne.items() if not done]:
                if _closed(sock):
                    borne[sock] = time.monotonic() - started
                elif rest:
                    with contextlib.suppress(OSError):
                        sock.send(bytes([byte]))
            if all(borne.values()):
                break
        seconds.extend(borne.values())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()
        for sock in socks:
            sock.close()


def latency(port: int, context: ssl.SSLContext | None) -> float:
    """How long an honest client waited, with a connection of its own."""
    started = time.monotonic()
    with connect(port) as sock:
        secured = context.wrap_socket(sock, server_hostname="127.0.0.1") if context else sock
        secured.sendall(GOOD)
        assert secured.recv(65536).startswith(b"HTTP/1.1 201")
        if context:
            secured.close()
    return time.monotonic() - started


@dataclass
class Experiment:
    """What twelve seconds with every kind of slow client showed."""

    latencies: list[float] = field(default_factory=list)
    tls_latencies: list[float] = field(default_factory=list)
    borne: dict[str, list[float]] = field(default_factory=dict)
    kept: bytes = b""


@pytest.fixture(scope="module")
def experiment(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """All at once: what one of them does to the others counts too."""
    folder = tmp_path_factory.mktemp("tls")
    pair = Authority(folder).issue("server")
    seen = Experiment()
    toml = f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"'
    with Running(folder, toml=toml) as tls, connect(service.port) as kept, ExitStack() as stack:
        kept.sendall(GOOD)
        assert kept.recv(65536).startswith(b"HTTP/1.1 201")
        for name, port, count, first, rest in (
            ("body", service.port, 300, HEAD + b"Content-Length: 5000\r\n\r\n", b" " * 60),
            ("head", service.port, 150, b"POST /v1/echo HTTP/1.1\r\n", b"X: " + b"y" * 60),
            ("chunks", service.port, 50, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10),
            ("silent", service.port, 1, b"", b""),
            ("silent_tls", tls.port, 100, b"", b""),
            ("half_a_handshake", tls.port, 100, b"\x16\x03\x01\x02", b"\x00" * 60),
        ):
            seen.borne[name] = stack.enter_context(dawdlers(port, count, first, rest))
        context = ssl.create_default_context(cafile=str(folder / "authority.pem"))
        end = time.monotonic() + BOUND_SECONDS - 1
        while time.monotonic() < end:
            seen.latencies.append(latency(service.port, None))
            seen.tls_latencies.append(latency(tls.port, context))
            time.sleep(0.02)
        kept.sendall(GOOD)
        seen.kept = kept.recv(65536)
    return seen


KINDS = ["body", "head", "chunks", "silent", "silent_tls", "half_a_handshake"]


@pytest.mark.parametrize("kind", KINDS)
def test_ht_3_slow_clients_are_cut_at_ten_seconds(experiment: Experiment, kind: str) -> None:
    assert min(experiment.borne[kind]) > CUT_SECONDS - 1, "cut before the time was up"
    assert max(experiment.borne[kind]) < BOUND_SECONDS


def test_ht_3_nobody_waits_for_seven_hundred_slow_clients(experiment: Experiment) -> None:
    assert statistics.quantiles(experiment.latencies, n=100)[98] < 1
    assert statistics.quantiles(experiment.tls_latencies, n=100)[98] < 1


def test_a_kept_connection_may_be_idle_for_longer(experiment: Experiment) -> None:
    assert experiment.kept.startswith(b"HTTP/1.1 201")


def test_ht_3_a_client_that_is_slow_but_in_time_is_answered(service: Running) -> None:
    with connect(service.port) as sock:
        for piece in (GOOD[:10], GOOD[10:60], GOOD[60:-3], GOOD[-3:]):
            sock.sendall(piece)
            time.sleep(0.3)
        assert sock.recv(65536).startswith(b"HTTP/1.1 201")


def test_ht_3_a_client_that_does_not_read_holds_no_thread(service: Running) -> None:
    """Answers that nobody takes fill the kernel's buffers; the threads go on with others."""
    socks = []
    try:
        for _ in range(16):  # twice the threads
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(("127.0.0.1", service.port))
            sock.settimeout(0.2)
            socks.append(sock)
            with contextlib.suppress(OSError):
                sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        assert max(latency(service.port, None) for _ in range(20)) < 1
    finally:
        for sock in socks:
            sock.close()
