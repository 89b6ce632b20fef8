"""A local program finds the socket as the standard says, and tells a refusal from an agent that is away."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.errors import Misconfigured, Refusal, Unreachable
from attestd.agent.workload import readings
from attestd.agent.workload.channel import TURN_SECONDS
from attestd.agent.workload.client import WorkloadClient, socket_of
from tests.attestd.agent.delivery.delivered import spelled
from tests.attestd.agent.workload.domain import Domain, workload
from tests.attestd.agent.workload.serving import HOUR, folder, me, serving

NOW = 1_900_000_000_000
DOMAIN = Domain.new()


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:///run/attestd-agent/workload.sock", "/run/attestd-agent/workload.sock"),
        ("unix:/run/workload.sock", "/run/workload.sock"),
        ("UNIX:///run/a%20b", "/run/a b"),
    ],
)
def test_an_endpoint_is_a_socket_by_its_absolute_path(endpoint: str, path: str) -> None:
    assert socket_of(endpoint) == Path(path)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/run/workload.sock",
        "unix:",
        "unix://",
        "unix:run/workload.sock",
        "unix://run/workload.sock",
        "unix://host/run/workload.sock",
        "unix://user@/run/workload.sock",
        "unix:///run/workload.sock?x=1",
        "unix:///run/workload.sock?",
        "unix:///run/workload.sock#x",
        "unix:///run/%00",
        "tcp://127.0.0.1:8000",
        "http:///run/workload.sock",
    ],
)
def test_another_endpoint_is_none(endpoint: str) -> None:
    with pytest.raises(Misconfigured, match="unix:///run"):
        socket_of(endpoint)


def ask(path: Path, question: Callable[[WorkloadClient], Awaitable[Any]], timeout: float = 20) -> Any:
    async def run() -> Any:
        async with WorkloadClient(path, timeout=timeout) as client:
            return await question(client)

    return asyncio.run(run())


def test_where_nobody_listens_nobody_is_reached(tmp_path: Path) -> None:
    for question in (lambda client: client.x509_svid(), lambda client: client.jwt_svid(["x"])):
        with pytest.raises(Unreachable, match="is the agent running"):
            ask(tmp_path / "none.sock", question)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 9, b"\0\0\0\x04\0\0\0\0\0", b"\xff" * 100]
)
def test_who_speaks_something_else_is_no_agent(said: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable):
            ask(path, lambda client: client.x509_svid(), timeout=2)
        thread.join(20)


def test_who_says_nothing_is_waited_for_no_longer_than_agreed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for question in (lambda client: client.x509_svid(), lambda client: client.jwt_svid(["x"])):
            with pytest.raises(Unreachable):
                ask(path, question, timeout=0.2)


def test_no_secret_is_shown_by_what_was_given() -> None:
    with serving(workload("telemetry", user=[me()])) as there:
        x509 = ask(there.path, lambda client: client.x509_svid())
        wit = ask(there.path, lambda client: client.wit_svid())
        token = ask(there.path, lambda client: client.jwt_svid(["https://a.example.org"]))
        access = ask(there.path, lambda client: client.access_token("telemetry", "https://a.example.org"))
    for shown, secret in ((x509, x509.key), (wit, wit.key), (wit, wit.text), (token, token.text)):
        assert str(secret) not in repr(shown)
    assert access.text not in repr(access)
    assert x509.expires_at // 1000 == wit.expires_at // 1000


def test_one_client_asks_again_after_the_agent_was_away() -> None:
    async def run() -> None:
        async with WorkloadClient(there.path, timeout=20) as client:
            before = await client.x509_svid()
            there.do(there.endpoint.listener.disconnect)
            while True:
                try:
                    after = await client.x509_svid()
                    break
                except Unreachable:
                    await asyncio.sleep(0.01)
            assert before == after

    with serving(workload("telemetry", user=[me()])) as there:
        asyncio.run(run())


def test_a_refusal_says_who_the_agent_saw() -> None:
    strangers = workload("telemetry", user=["65533"])
    with serving(strangers) as there, pytest.raises(Refusal, match=f"of user {me()}"):
        ask(there.path, lambda client: client.x509_svid())


# What answers hold.


def test_certificates_one_after_the_other_are_told_apart() -> None:
    leaf = DOMAIN.x509("a", until=NOW).chain[0]
    assert readings.split_certificates(leaf + DOMAIN.certificate) == (leaf, DOMAIN.certificate)
    assert readings.split_certificates(b"") == ()
    assert readings.split_certificates(b"\x30\x02ab") == (b"\x30\x02ab",)
    assert readings.certificate_ends(leaf) == NOW


@pytest.mark.parametrize(
    "raw",
    [b"\x30", b"\x31\x00", b"\x30\x80", b"\x30\x85\1\1\1\1\1", b"\x30\x82\x01", b"\x30\x03ab", b"x" * 9],
)
def test_what_is_no_certificate_is_none(raw: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        readings.split_certificates(raw)


def test_every_cut_of_a_certificate_is_refused() -> None:
    for size in range(1, len(DOMAIN.certificate)):
        with pytest.raises(ValueError, match="certificate"):
            readings.split_certificates(DOMAIN.certificate[:size])


def test_a_tokens_end_and_audiences_are_read() -> None:
    token = DOMAIN.jwt("a", ("x", "y"), until=NOW).text
    assert (readings.token_ends(token), readings.token_audiences(token)) == (NOW, ("x", "y"))
    single = DOMAIN.jwt("a", (), until=NOW + HOUR, aud="x").text
    assert readings.token_audiences(single) == ("x",)


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.W10.c", "a.e30.c", "a.eyJleHAiOiJ4In0.c", "..."])
def test_what_is_no_token_has_no_end(token: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        readings.token_ends(token)


@pytest.mark.parametrize(
    "payload",
    [
        '{"exp":Infinity}',
        '{"exp":-Infinity}',
        '{"exp":NaN}',
        '{"exp":1e999}',
        '{"exp":1' + "0" * 400 + "}",
        '{"exp":-1}',
        '{"exp":true}',
        '{"exp":253402300800}',
        "[" * 200_000,
    ],
)
def test_an_end_that_no_clock_reaches_is_none(payload: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        readings.token_ends(spelled(payload).decode())
    for last in ("253402300799", "1800000000.5"):
        assert readings.token_ends(spelled(f'{{"exp":{last}}}').decode()) == int(float(last) * 1000)


@contextmanager
def full() -> Iterator[tuple[Path, ExitStack]]:
    """An agent that accepts nobody until the stack is closed, with as many waiting as may."""
    mine = workload("telemetry", user=[me()])
    with folder() as directory, socket.socket(socket.AF_UNIX) as theirs, ExitStack() as waiting:
        path = directory / "s"
        theirs.bind(str(path))
        theirs.listen(0)
        with serving(mine, domain=DOMAIN, listening=theirs.dup()) as there, ExitStack() as still:
            still.enter_context(there.standing_still())
            for _ in range(4):
                one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect_ex(str(path))
            yield path, still


def test_who_finds_the_queue_full_waits_for_its_turn() -> None:
    with full() as (path, still):
        threading.Timer(0.1, still.close).start()
        given = ask(path, lambda client: client.x509_svid())
        assert given.spiffe_id == DOMAIN.spiffe_id("telemetry")


def test_who_finds_the_queue_full_does_not_wait_for_ever() -> None:
    with full() as (path, _):
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="unavailable"):
            ask(path, lambda client: client.x509_svid())
        assert TURN_SECONDS - 0.1 < time.monotonic() - begin < 10
