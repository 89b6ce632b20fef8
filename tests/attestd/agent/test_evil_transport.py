"""Whatever comes over the wire instead of an answer, the agent reads a bounded part of it in a bounded time,
and speaks to nobody else."""

import gzip
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.agent.errors import Misconfigured, Refusal, Unreachable
from attestd.agent.pin import fetch_certificate
from attestd.agent.transport import ANSWER_LIMIT, RETRY_LIMIT, WIRE_LIMIT, Server
from tests.attestd.agent.far_side import FarSide, answer
from tests.attestd.web.certificates import Authority, Pair

GOOD = answer({"a": 1})
OK = b"HTTP/1.1 200 OK\r\n"
ON_ITS_WAY = 16 << 20
"""Bytes that the system keeps between two ends on this machine, at most."""


def asked(said: bytes | Iterator[bytes], *, patience: float = 20.0) -> tuple[dict[str, object], FarSide]:
    """What the agent makes of this answer."""
    with FarSide({"/x": lambda: said}) as far:
        return Server(far.url, patience=patience).post("/x", {"secret": 1}), far


def test_a_good_answer_is_read() -> None:
    """The twin of all that follows."""
    members, far = asked(GOOD)
    assert members == {"a": 1}
    assert far.asked == [("/x", {"secret": 1})]


# --- how much, how long ---------------------------------------------------------------------------


def forever(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece * (1 + (1 << 16) // len(piece)))


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
        (b"", b"\0"),
        (OK, b"X: y\r\n"),
        (OK + b"X: ", b"y"),
        (OK + b"\r\n", b" "),
        (OK + b"Content-Length: 99999999999999\r\n\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED + b'7\r\n{"a":1}\r\n0\r\n', b"X: y\r\n"),
        (CHUNKED, b"1;extension=y"),
        (CHUNKED, b"f"),
    ],
    ids=[
        "continue",
        "continue_with_headers",
        "zeros",
        "headers",
        "header",
        "body",
        "length",
        "chunks",
        "trailers",
        "extension",
        "size",
    ],
)
def test_ag_1_what_never_ends_is_read_up_to_a_bound_however_fast_it_comes(head: bytes, piece: bytes) -> None:
    with FarSide({"/x": lambda: itertools.chain([head], forever(piece))}) as far:
        with pytest.raises(Unreachable):
            Server(far.url, patience=30).get("/x")
        time.sleep(0.1)
        assert far.sent < WIRE_LIMIT + ON_ITS_WAY


def test_interim_answers_before_the_answer_are_passed_over() -> None:
    assert asked(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + GOOD)[0] == {"a": 1}


def test_an_answer_as_long_as_may_be_is_read() -> None:
    body = b'{"a":1' + b" " * (ANSWER_LIMIT - 7) + b"}"
    assert asked(answer(body))[0] == {"a": 1}
    with pytest.raises(Unreachable, match="more than"):
        asked(answer(b" " + body))


@contextmanager
def talking(speech: Iterator[bytes]) -> Iterator[int]:
    """A port where this is said to whoever connects, and nothing is listened to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                for piece in speech:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def dripped(first: bytes) -> Iterator[bytes]:
    yield first
    while True:
        time.sleep(0.02)
        yield b"\2"


SERVER_HELLO = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"
"""The begin of a TLS record of 16 KiB with a ServerHello in it."""


def test_ag_1_a_handshake_that_drips_is_left_in_time(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with talking(dripped(SERVER_HELLO)) as port:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"within 0\.4 seconds"):
            Server(f"https://127.0.0.1:{port}", authority.pem, patience=0.4).get("/x")
        assert time.monotonic() - started < 2


def test_ag_1_so_it_is_where_a_certificate_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attestd.agent.pin.PATIENCE_SECONDS", 0.4)
    with talking(dripped(SERVER_HELLO)) as port:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"within 0\.4 seconds"):
            fetch_certificate(f"https://127.0.0.1:{port}", "00" * 32)
        assert time.monotonic() - started < 2


# --- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b'{"a":1}',
        b"200 OK\r\n\r\n{}",
        b"HTTP/2 200 OK\r\n\r\n{}",
        b"HTTP/1.1 2000 OK\r\n\r\n{}",
        b"HTTP/1.1 99 OK\r\n\r\n{}",
        b"HTTP/1.1 two OK\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shell\r\n\r\n{}",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + GOOD,
        b"HTTP/1.1 204 No Content\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n" + GOOD,
    ],
    ids=lambda said: repr(said[:24]),
)
def test_ag_5_another_protocol_or_version_is_no_answer(said: bytes) -> None:
    with FarSide({"/x": said}) as far, pytest.raises(Unreachable):
        Server(far.url).get("/x")


def test_ag_1_nothing_is_unpacked_and_nothing_packed_is_asked_for() -> None:
    bomb = gzip.compress(b'{"a":1' + b" " * (100 << 20) + b"}")
    with FarSide({"/x": answer(bomb, headers="Content-Encoding: gzip\r\n")}) as far:
        with pytest.raises(Unreachable, match="not JSON"):
            Server(far.url).get("/x")
        assert far.heads[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1", OK, OK + b"Content-Length: 9\r\n\r\n{"])
def test_ag_5_a_body_is_sent_once_whatever_comes_of_it(said: bytes) -> None:
    with FarSide({"/x": said}) as far:
        with pytest.raises(Unreachable):
            Server(far.url).post("/x", {"secret": 1})
        assert far.count("/x") == 1


def test_ag_5_nothing_that_a_server_gave_is_sent_to_it_again() -> None:
    cookie = 'Set-Cookie: id=1\r\nWWW-Authenticate: Basic\r\nAlt-Svc: h2=":1"\r\nRefresh: 0;/y\r\n'
    with FarSide({"/x": answer({}, headers=cookie)}) as far:
        server = Server(far.url)
        server.get("/x")
        server.get("/x")
        first, second = far.heads
        assert first == second
        assert set(first) == {"host", "accept-encoding", "accept"}


@pytest.mark.parametrize(
    "told",
    [
        "Content-Length: 7\r\nContent-Length: 9",
        "Retry-After: 7\r\nRetry-After: 1000000",
        "Content-Type: text/x",
    ],
)
def test_a_header_that_says_more_than_it_should_changes_nothing(told: str) -> None:
    said = f"HTTP/1.1 200 OK\r\n{told}\r\nConnection: close\r\n\r\n".encode() + b'{"a":1}'
    assert asked(said)[0] == {"a": 1}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ("Retry-After: 7\r\nRetry-After: 1000000000\r\n", 7),
        ("Retry-After: 99999\r\nRetry-After: 7\r\n", RETRY_LIMIT),
        ("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", None),
        ("Retry-After: 1e9\r\n", None),
        ("Retry-After: \r\n", None),
    ],
)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_ag_6_whatever_is_said_of_later_the_agent_comes_back(
    headers: str, seconds: int | None, status: int
) -> None:
    told = None
    with FarSide({"/x": answer({}, status, headers)}) as far:
        try:
            Server(far.url).get("/x")
        except (Refusal, Unreachable) as error:
            told = error
    assert told is not None
    assert told.retry_after == seconds


# --- to whom --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://attestd.example.org",
        "http://192.0.2.1:8440",
        "http://127.0.0.1.example.org",
        "http://2130706433",
        "http://0.0.0.0:8440",
        "http://localhost.example.org",
        "http://[::ffff:192.0.2.1]",
        "http://127.0.0.1@attestd.example.org",
        "https://attestd.example.org@127.0.0.1",
        "HTTPS://attestd.example.org",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "https://attestd.example.org?x",
        "https://attestd.example.org/\r\nX: y",
        "https://attestd.example.org/",
    ],
)
def test_ag_5_who_could_listen_or_is_not_written_as_one_address_is_not_spoken_to(url: str) -> None:
    with pytest.raises(Misconfigured):
        Server(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8440", "http://localhost", "http://[::1]:8440", "https://a.example.org/base"]
)
def test_tls_to_anybody_and_plain_to_this_machine_are(url: str) -> None:
    assert Server(url).url == url


@contextmanager
def secure(pair: Pair, version: ssl.TLSVersion) -> Iterator[str]:
    """Answers over TLS of exactly this version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        tls.recv(1 << 16)
                        tls.sendall(GOOD)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_ag_5_an_old_version_of_tls_is_not_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    with secure(authority.issue("server"), version) as url, pytest.raises(Unreachable):
        Server(url, authority.pem).get("/x")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_version_of_today_is(tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    with secure(authority.issue("server"), version) as url:
        assert Server(url, authority.pem).get("/x") == {"a": 1}


def test_ag_5_no_proxy_of_the_environment_sees_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with FarSide({"/x": GOOD}) as proxy, FarSide({"/x": GOOD}) as far:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert Server(far.url).get("/x") == json.loads(GOOD.partition(b"\r\n\r\n")[2])
        assert proxy.asked == []
