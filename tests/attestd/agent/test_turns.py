"""Whoever waits for the network lets others use the TPM meanwhile, and waits for no longer than a round may
take."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.agent import attest
from attestd.agent.attest import Received, Wanted
from attestd.agent.errors import Unreachable
from attestd.agent.machine import Machine, opened
from attestd.agent.state import State
from attestd.agent.transport import Server
from tests.attestd.agent.far_side import (
    ATTEST,
    ATTESTED,
    CHALLENGE,
    FarSide,
    Said,
    answer,
    challenge,
    member_of,
    problem,
)
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

WANTED = Wanted("builder", ("x509-svid",), "tpm", (), ("disk",))
GIVEN = {**ATTESTED, "credentials": [{"format": "x509-svid", "agent": "builder"}]}


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide({ATTEST: GIVEN}) as side:
        yield side


@pytest.fixture
def machine(far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path) -> Machine:
    member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
    return Machine(shared_tpm.tcti, State(tmp_path / "state"), Server(far.url))


class Waiting:
    """An answer that comes when it is let go."""

    def __init__(self, said: Said) -> None:
        self._said, self.asked, self.go = said, threading.Event(), threading.Event()

    def __call__(self) -> Iterator[bytes]:
        self.asked.set()
        assert self.go.wait(20)
        assert not isinstance(self._said, Iterator)
        yield self._said if isinstance(self._said, bytes) else answer(self._said)


@pytest.mark.parametrize("path", [CHALLENGE, ATTEST])
def test_ag_7_the_tpm_is_free_while_a_round_waits_for_an_answer(
    far: FarSide, machine: Machine, shared_tpm: SoftwareTpm, path: str
) -> None:
    waiting = Waiting(challenge() if path == CHALLENGE else GIVEN)
    far.answers[path] = waiting
    got: list[Received] = []
    round_ = threading.Thread(target=lambda: got.append(machine.attest(WANTED)))
    round_.start()
    try:
        assert waiting.asked.wait(20)
        used: list[Any] = []
        other = threading.Thread(target=lambda: used.append(_use(machine)))
        other.start()
        other.join(5)
        assert used, "the TPM is held while the network is waited for"
        assert leftovers(shared_tpm) == {}
    finally:
        waiting.go.set()
        round_.join(20)
    assert got[0].answer["verdict"] == "accepted"


def _use(machine: Machine) -> bytes:
    with opened(machine.tcti, machine.state.directory, patience=2) as device:
        return device.create_ak()


def test_the_key_of_the_first_turn_is_the_one_of_the_next(far: FarSide, machine: Machine) -> None:
    said: list[Said] = [problem(409, "nonce_expired"), problem(409, "conflict"), GIVEN]
    far.answers[ATTEST] = lambda: said.pop(0)
    (part,) = machine.attest(WANTED).parts
    asked = {request["credentials"][0]["key"]["name"] for request in far.requests()}
    assert len(far.requests()) == 3
    assert part.key is not None
    assert part.key.blob is not None
    assert asked == {part.key.blob.area.name.hex()}
    assert machine.key(part).sign(b"message")


def slowly(piece: bytes, pause: float) -> Iterator[bytes]:
    time.sleep(pause)
    yield piece


def test_ag_1_all_requests_of_a_round_end_by_one_deadline(
    far: FarSide, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attest, "ROUND_SECONDS", 1.0)
    far.answers[CHALLENGE] = lambda: slowly(answer(challenge()), 0.4)
    far.answers[ATTEST] = lambda: slowly(problem(409, "nonce_expired"), 0.4)
    started = time.monotonic()
    with pytest.raises(Unreachable):
        machine.attest(WANTED)
    assert time.monotonic() - started < 1.5
    assert far.count(CHALLENGE) == 2
    # The twin: the same answers within a longer round, all attempts of it.
    monkeypatch.setattr(attest, "ROUND_SECONDS", 60.0)
    said: list[Said] = [problem(409, "nonce_expired"), problem(409, "nonce_expired"), answer(GIVEN)]
    far.answers[ATTEST] = lambda: slowly(bytes(said.pop(0)), 0.2)  # type: ignore[arg-type]
    assert machine.attest(WANTED).answer["verdict"] == "accepted"


def test_when_the_time_is_over_nothing_more_is_sent(far: FarSide) -> None:
    server = Server(far.url).within(30).within(0.0)
    with pytest.raises(Unreachable, match="takes too long"):
        server.post(CHALLENGE, {})
    assert far.asked == []
    assert Server(far.url).within(0.0).within(30).end < time.monotonic() + 1
    assert Server(far.url).within(30).post(CHALLENGE, {})["nonce"]
