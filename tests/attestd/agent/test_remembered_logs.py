"""What is remembered of the logs saves bytes, and never costs a round: neither a full disk nor a wrong number
stands between a machine and its identity."""

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.attest import ATTEMPTS, Wanted
from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.logs import IMA_ENTRIES, Known, LogFiles, Logs, boot_id
from attestd.agent.machine import Machine
from attestd.agent.state import State
from attestd.agent.transport import Server
from tests.attestd.agent.far_side import (
    ATTEST,
    ATTESTED,
    CHALLENGE,
    FarSide,
    Said,
    challenge,
    member_of,
    problem,
)
from tests.serving import Agent
from tests.tpm.ima.kernel import Kernel
from tpm.swtpm import SoftwareTpm

WANTED = Wanted("builder", ("jwt-svid",), "software", ("https://a.example.org",), ("disk",))
KNOWN = {"known_event_log": None, "ima_next": 2}


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide({CHALLENGE: lambda: challenge(ima_log=True, event_log=True)}) as side:
        yield side


@pytest.fixture
def machine(far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path) -> Machine:
    """One with logs of its own."""
    member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
    kernel = Kernel.booted().run(b"/usr/bin/sh").run(b"/usr/bin/telemetry")
    (tmp_path / "ima").write_bytes(kernel.raw())
    (tmp_path / "event").write_bytes(b"event log")
    files = LogFiles(tmp_path / "event", None, tmp_path / "ima")
    return Machine(shared_tpm.tcti, State(tmp_path / "state"), Server(far.url), files)


def remember(machine: Machine, **members: Any) -> None:
    machine.state.keep_known_logs({"boot_id": boot_id(), **members})


def begun_at(far: FarSide) -> list[int]:
    """Where IMA's list began in each request."""
    return [request.get("ima_from", 0) for request in far.requests()]


@dataclass(frozen=True, slots=True)
class FullDisk(State):
    """A state directory in which nothing more can be written."""

    def keep_known_logs(self, known: Mapping[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_accepted_round_is_not_lost_for_a_full_disk(far: FarSide, machine: Machine) -> None:
    full = Machine(machine.tcti, FullDisk(machine.state.directory), machine.server, machine.files)
    far.answers[ATTEST] = {**ATTESTED, **KNOWN}
    assert full.attest(WANTED).answer["verdict"] == "accepted"
    assert machine.state.known_logs() is None
    # The twin: with room for it, it is remembered.
    assert machine.attest(WANTED).answer["verdict"] == "accepted"
    assert Logs(machine.files, machine.state).known().ima_next == 2


def test_on_a_full_disk_what_was_wrong_is_left_out_all_the_same(far: FarSide, machine: Machine) -> None:
    full = Machine(machine.tcti, FullDisk(machine.state.directory), machine.server, machine.files)
    for code, status in ("log_needed", 409), ("evidence_incomplete", 403), ("malformed", 400):
        remember(machine, ima_next=1)
        far.asked.clear()
        far.answers[ATTEST] = answers(problem(status, code), {**ATTESTED, **KNOWN})
        assert full.attest(WANTED).answer["verdict"] == "accepted"
        assert begun_at(far) == [1, 0]


def answers(*said: Said) -> Any:
    """One after the other; the last one for ever."""
    left = list(said)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("number", [IMA_ENTRIES, 2**63 - 1, -1, True, "2", None, 2.0])
def test_ag_1_a_number_that_no_request_can_carry_is_not_remembered_as_one(
    far: FarSide, machine: Machine, number: object
) -> None:
    mine = Logs(machine.files, machine.state)
    mine.remember({"ima_next": number})
    assert mine.known().ima_next == 0
    assert machine.attest(WANTED).answer["verdict"] == "accepted"
    assert begun_at(far) == [0]
    mine.remember({"ima_next": IMA_ENTRIES - 1})
    assert mine.known().ima_next == IMA_ENTRIES - 1


@pytest.mark.parametrize(("code", "status"), [("malformed", 400), ("evidence_incomplete", 403)])
def test_ag_1_what_was_remembered_wrongly_is_forgotten_when_it_is_refused_and_all_is_sent(
    far: FarSide, machine: Machine, code: str, status: int
) -> None:
    digest = hashlib.sha256(b"event log").hexdigest()
    for kept in {"ima_next": 1_000_000}, {"event_log": digest}:
        remember(machine, **kept)
        far.asked.clear()
        far.answers[ATTEST] = answers(problem(status, code), {**ATTESTED, **KNOWN})
        assert machine.attest(WANTED).answer["verdict"] == "accepted"
        bodies = [body for path, body in far.asked if path == ATTEST]
        assert [isinstance(body["event_log"], str) for body in bodies] == ["event_log" not in kept, True]
        assert begun_at(far) == [kept.get("ima_next", 0), 0]


@pytest.mark.parametrize(("code", "status"), [("malformed", 400), ("evidence_incomplete", 403)])
def test_what_is_refused_though_all_was_sent_is_not_sent_again(
    far: FarSide, machine: Machine, code: str, status: int
) -> None:
    far.answers[ATTEST] = problem(status, code)
    for kept, tries in ({}, 1), ({"ima_next": 1}, 2):
        remember(machine, **kept)
        far.asked.clear()
        with pytest.raises(Refusal, match=code):
            machine.attest(WANTED)
        assert far.count(ATTEST) == tries < ATTEMPTS
        assert Logs(machine.files, machine.state).known().ima_next == 0


def test_a_decision_about_the_machine_does_not_make_it_forget(far: FarSide, machine: Machine) -> None:
    remember(machine, ima_next=1)
    far.answers[ATTEST] = problem(403, "posture_rejected")
    with pytest.raises(Refusal, match="posture_rejected"):
        machine.attest(WANTED)
    assert far.count(ATTEST) == 1
    assert Logs(machine.files, machine.state).known() == Known(boot_id(), None, 1)


def test_ag_1_of_an_answer_that_cannot_be_read_nothing_is_remembered(far: FarSide, machine: Machine) -> None:
    far.answers[ATTEST] = {**ATTESTED, **KNOWN, "credentials": []}
    with pytest.raises(Unreachable, match="cannot be read"):
        machine.attest(WANTED)
    assert machine.state.known_logs() is None
    far.answers[ATTEST] = {**ATTESTED, **KNOWN}
    machine.attest(WANTED)
    assert json.loads((machine.state.directory / "logs.json").read_text())["ima_next"] == 2
