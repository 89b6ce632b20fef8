"""A name with addresses that lead nowhere costs a moment, and all of them no more than was allowed."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from attestd.agent import connecting
from attestd.agent.errors import Unreachable
from attestd.agent.transport import Server
from tests.attestd.agent.far_side import FarSide, answer

NAMED = "http://127.0.0.1:1"
"""Where it leads is what the name service says in each test."""


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which nothing is ever answered: its queue of callers is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = [socket.socket() for _ in range(3)]
        try:
            for each in queued:
                each.setblocking(False)
                each.connect_ex(listener.getsockname())
            time.sleep(0.05)
            yield listener.getsockname()[1]
        finally:
            for each in queued:
                each.close()


def closed() -> int:
    """A port at which connections are refused."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        return int(other.getsockname()[1])


def named(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """The name service knows these addresses, in this order."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def seconds(server: Server, *, why: str) -> float:
    """How long it takes to give up, and why."""
    started = time.monotonic()
    with pytest.raises(Unreachable, match=why):
        server.get("/x")
    return time.monotonic() - started


def test_ag_1_addresses_without_an_answer_take_no_longer_than_one_answer_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with nobody() as port:
        for number in 1, 2, 8:
            named(monkeypatch, *[port] * number)
            assert 0.4 < seconds(Server(NAMED, patience=0.5), why="does not answer") < 1.0


def test_an_address_that_nobody_answers_at_costs_a_moment_where_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.1)
    with nobody() as port, FarSide({"/x": answer({"a": 1})}) as far:
        good = int(far.url.rpartition(":")[2])
        named(monkeypatch, port, port, good)
        started = time.monotonic()
        assert Server(NAMED, patience=20).get("/x") == {"a": 1}
        assert time.monotonic() - started < 1.5


def test_the_last_address_has_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.05)
    with nobody() as port:
        named(monkeypatch, closed(), port)
        assert seconds(Server(NAMED, patience=0.6), why="does not answer") > 0.4


def test_an_address_that_refuses_is_passed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with FarSide({"/x": answer({"a": 1})}) as far:
        named(monkeypatch, closed(), int(far.url.rpartition(":")[2]))
        assert Server(NAMED, patience=5).get("/x") == {"a": 1}
    named(monkeypatch, closed())
    assert seconds(Server(NAMED, patience=5), why="refused") < 1


def test_ag_1_what_connecting_took_is_taken_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.3)

    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX: "
        while True:
            time.sleep(0.02)
            yield b"y"

    with nobody() as port, FarSide({"/x": drip}) as far:
        named(monkeypatch, port, int(far.url.rpartition(":")[2]))
        assert seconds(Server(NAMED, patience=0.6), why=r"no whole answer within 0\.6 seconds") < 0.85
