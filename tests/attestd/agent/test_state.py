"""What the state directory keeps is read as it was written, and what is wrong in it holds up nobody."""

import json
import os
from pathlib import Path

import pytest

from attestd.agent.errors import Misconfigured
from attestd.agent.state import Membership, State

HOUR = 3_600_000
DRAFT = ".logs.json.0123456789abcdef"


def test_what_cannot_be_swept_away_stays_and_the_agent_starts(tmp_path: Path) -> None:
    stuck, other = tmp_path / DRAFT, tmp_path / DRAFT.replace("logs", "last")
    stuck.mkdir()  # Like a file in a directory that is read-only now: it cannot be unlinked.
    other.write_text("")
    for path in stuck, other:
        os.utime(path, (0, 0))
    State(tmp_path).sweep(now=HOUR)
    assert stuck.exists()
    assert not other.exists()


MOMENTS = [(0, True), (0.0009, True), (59, True), (-61, False), (61, False)]


@pytest.mark.parametrize(("seconds", "stays"), MOMENTS)
def test_a_draft_of_now_is_left_to_who_writes_it(tmp_path: Path, seconds: float, stays: bool) -> None:
    (tmp_path / DRAFT).write_text("")
    os.utime(tmp_path / DRAFT, (0, HOUR / 1000 + seconds))
    State(tmp_path).sweep(now=HOUR)
    assert (tmp_path / DRAFT).exists() is stays


@pytest.mark.parametrize("trust_domain", [None, "example.org"])
def test_an_enrolment_is_read_as_it_was_kept(tmp_path: Path, trust_domain: str | None) -> None:
    state = State(tmp_path)
    kept = Membership("https://attestd.example.org", "ab" * 32, "active", "L-2", trust_domain)
    state.keep_membership(kept)
    assert state.membership() == kept
    members = json.loads((tmp_path / "enrollment.json").read_text())
    assert ("trust_domain" in members) is (trust_domain is not None)


@pytest.mark.parametrize("changed", [{"trust_domain": 1}, {"trust_domain": ["example.org"]}, {"ek": None}])
def test_a_damaged_enrolment_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    state = State(tmp_path)
    members = {
        "server": "https://attestd.example.org",
        "device_id": "ab" * 32,
        "state": "active",
        "ek": "L-2",
    }
    told = {name: value for name, value in (members | changed).items() if value is not None}
    (tmp_path / "enrollment.json").write_text(json.dumps(told))
    with pytest.raises(Misconfigured, match="damaged"):
        state.membership()
