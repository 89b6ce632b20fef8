"""What `agent status` believes of what an agent told: this start's word, and nothing that has ended since."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.lock import running_instance, sole_agent
from attestd.agent.logs import boot_id
from attestd.agent.running.standing import as_of
from attestd.agent.state import State
from attestd.clock import now_ms, rfc3339
from tests.attestd.agent.running.started import Running
from tests.serving import Agent

NOW = 1_800_000_000_000
SECOND = 1000


def told(*ends: int, identity: bool = True) -> dict[str, Any]:
    given = [{"agent": f"a{place}", "expires_at": rfc3339(end)} for place, end in enumerate(ends)]
    return {"credentials": given, "identity": identity, "pid": 1}


def test_what_has_ended_since_it_was_told_is_no_identity() -> None:
    assert as_of(told(NOW), NOW) == {"credentials": [], "identity": False, "pid": 1}
    some = as_of(told(NOW, NOW + SECOND), NOW)
    assert ([each["agent"] for each in some["credentials"]], some["identity"]) == (["a1"], True)
    assert as_of(told(NOW + SECOND, identity=False), NOW)["identity"] is False


def test_a_machine_that_holds_nothing_in_advance_stands_as_it_was_told() -> None:
    assert as_of(told(), NOW)["identity"] is True
    assert as_of(told(identity=False), NOW)["identity"] is False


def test_each_start_has_a_number_that_no_other_has(tmp_path: Path) -> None:
    numbers = set()
    for _ in range(3):
        with sole_agent(tmp_path) as instance:
            runs = running_instance(tmp_path)
            assert runs is not None
            assert (runs.who, runs.instance) == (f"pid {os.getpid()}", instance)
            numbers.add(instance)
    assert len(numbers) == 3
    assert running_instance(tmp_path) is None


@pytest.fixture
def running(newcomer: Agent, tmp_path: Path) -> Iterator[Running]:
    with Running(newcomer, tmp_path / "agent", server=newcomer.url) as made:
        made.identity()
        yield made


def test_an_agent_that_stands_still_has_no_identity_when_its_credentials_have_ended(running: Running) -> None:
    assert running.agent("status", "--wait", "0.1").stdout == ""
    os.kill(running.process.pid, signal.SIGSTOP)
    state = State(running.agent.state)
    standing = dict(state.standing() or {})
    ended = [each | {"expires_at": rfc3339(now_ms() - SECOND)} for each in standing["credentials"]]
    state.keep_standing(standing | {"credentials": ended})
    assert "no identity within" in running.agent("status", "--wait", "0.1", status=1).stderr
    text = running.agent("status", status=1).stdout
    assert "holds" not in text


def test_what_another_start_with_the_same_process_id_told_is_not_taken_for_now(running: Running) -> None:
    state = State(running.agent.state)
    standing = dict(state.standing() or {})
    assert (standing["pid"], standing["boot_id"]) == (running.process.pid, boot_id())
    os.kill(running.process.pid, signal.SIGSTOP)
    state.keep_standing(standing | {"instance": "0123456789abcdef"})
    assert "no identity within" in running.agent("status", "--wait", "0.1", status=1).stderr
    shown = json.loads(running.agent("status", "--json", status=1).stdout)
    assert (shown["agent"]["pid"], shown["agent"]["identity"]) == (running.process.pid, False)
