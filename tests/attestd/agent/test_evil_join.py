"""A machine joins the service that its operator named or none, whatever answers at that address."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.agent.transport import ANSWER_LIMIT
from tests.attestd.agent.far_side import ENROLL, FarSide, Said, Told, answer, problem
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

PUBLISHED = "/.well-known/openid-configuration"


def published(far: FarSide) -> Told:
    """What says that it is attestd, and which."""
    return {"issuer": far.url, "challenge_endpoint": f"{far.url}/oauth/challenge"}


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide() as far:
        far.answers[PUBLISHED] = published(far)
        yield far


@pytest.fixture
def newcomer(far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path) -> Agent:
    return Agent(shared_tpm, tmp_path / "state", far.url)


def asked(agent: Agent, verb: str, *arguments: str, status: int) -> str:
    """What is said: lines for a terminal, however the other side would have it."""
    told = agent(verb, *arguments, status=status)
    said = told.stdout + told.stderr
    assert all(line.isprintable() and len(line) < 1000 for line in said.splitlines())
    assert "internal error" not in said
    assert "Traceback" not in said
    assert leftovers(agent.tpm) == {}
    return said


OTHERS: list[Said] = [
    {"issuer": "https://evil.example.org", "challenge_endpoint": "x"},
    {"issuer": "\x1b[2J\x1b[1;32mok    service", "challenge_endpoint": "x"},
    {"issuer": "https://evil.example.org"},
    {"issuer": "\x1b[2J\x1b[1;32mok    service"},
    {"issuer": ["x"]},
    {"issuer": None},
    {},
    answer([]),
    answer(b"<html>Welcome to the portal</html>"),
    answer(b"[" * 100_000),
    answer(b'{"issuer":"' + b"x" * (2 * ANSWER_LIMIT) + b'"}'),
    answer({}, 302, "Location: http://127.0.0.1:1/\r\n"),
    answer({}, 404),
    answer({"detail": "\x1b[2J"}, 503, "Retry-After: 1000000000\r\n"),
    b"",
    b"\x16\x03\x01",
    b"HTTP/1.1 200 OK\r\nDate: " + b"x" * 70_000 + b"\r\n\r\n{}",
]


@pytest.mark.parametrize("said", OTHERS, ids=itertools.count())
def test_ag_5_what_is_not_the_service_that_was_named_is_told_nothing(
    far: FarSide, newcomer: Agent, said: Said
) -> None:
    far.answers[PUBLISHED] = said
    status = 3 if said in (b"", b"\x16\x03\x01", OTHERS[-1]) else 1
    told = asked(newcomer, "join", far.url, status=status)
    assert "not joined: mend what FAILs" in told
    assert far.count(ENROLL) == 0
    assert not (newcomer.state / "enrollment.json").exists()
    assert not (newcomer.state / "ca.pem").exists()


@pytest.mark.parametrize("said", OTHERS, ids=itertools.count())
def test_ag_1_the_doctor_says_of_any_answer_what_it_is(far: FarSide, newcomer: Agent, said: Said) -> None:
    far.answers[PUBLISHED] = said
    told = asked(newcomer, "doctor", "--server", far.url, status=1)
    assert "FAIL" in told
    assert "ok    pcr banks" in told
    assert not newcomer.state.exists()


@pytest.mark.parametrize(
    "date",
    ["Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "", "9" * 400, "\xff"],
    ids=itertools.count(),
)
def test_ag_1_whatever_time_a_server_tells_it_is_a_line_of_the_doctor(
    far: FarSide, newcomer: Agent, date: str
) -> None:
    far.answers[PUBLISHED] = answer(published(far), headers=f"Date: {date}\r\n")
    told = newcomer("doctor", "--server", far.url, status=1 if "GMT" in date else 0)
    assert "clock" in told.stdout
    assert told.stdout.isascii()


def test_ag_6_a_service_that_never_admits_is_left_at_once_where_nobody_waits(
    far: FarSide, newcomer: Agent
) -> None:
    far.answers[ENROLL] = problem(403, "enrollment_refused", findings=[{"code": "\x1b[2J"}])
    told = asked(newcomer, "join", far.url, "--no-wait", status=1)
    assert "not accepted: enrollment_refused: Because." in told
    assert far.count(ENROLL) == 1
    assert not (newcomer.state / "enrollment.json").exists()
