"""A service that answers otherwise than it should gives the agent no token, and one that is away for a moment
takes none from it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from attestd.agent.auth.session import AgentSession
from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.machine import Machine
from attestd.agent.token import CHALLENGE_PATH, TOKEN_PATH, Asked
from attestd.clock import now_ms, rfc3339
from tests.attestd.agent.far_side import ATTEST, ATTESTED, CHALLENGE, FarSide, answer, challenge, member_of
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers

AUDIENCE, URL = "https://tools.example.org", "https://tools.example.org/ledger"
ASKED = Asked("planner", AUDIENCE)
TOKEN = {"access_token": "t.t.t", "token_type": "DPoP", "expires_in": 300, "scope": "ledger.read"}
AWAY = answer({"error": "temporarily_unavailable"}, 503)


class Clock:
    """Now, and later."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead


def attested(**changed: Any) -> dict[str, Any]:
    """The answer to an attestation for the planner, but for these members of its credential."""
    credential = {
        "format": "client-attestation",
        "agent": "planner",
        "spiffe_id": "spiffe://example.org/agent/planner/x",
        "token": "c.c.c",
        "expires_at": rfc3339(now_ms() + 600_000),
    }
    return {**ATTESTED, "credentials": [credential | changed], "sealed_keys": []}


def error(name: str, nonce: str | None = None, status: int = 400) -> bytes:
    header = "" if nonce is None else f"DPoP-Nonce: {nonce}\r\n"
    return answer({"error": name, "error_description": "Because."}, status, header)


@pytest.fixture
def far() -> Iterator[FarSide]:
    good: dict[str, Any] = {
        CHALLENGE: challenge,
        ATTEST: attested,
        CHALLENGE_PATH: {"attestation_challenge": "n-1"},
        TOKEN_PATH: TOKEN,
    }
    with FarSide(good) as server:
        yield server


@pytest.fixture
def machine(far: FarSide, newcomer: Agent) -> Machine:
    enrolled = member_of(far, newcomer)
    return Machine.enrolled(enrolled.tpm.tcti, enrolled.state)


def test_the_far_side_is_believed_where_it_answers_well(far: FarSide, machine: Machine) -> None:
    """The twin of all that follows."""
    headers = AgentSession(machine, ASKED).headers("GET", URL)
    assert headers["Authorization"] == "DPoP t.t.t"
    (form,) = [members for path, members in far.asked if path == TOKEN_PATH]
    assert form == {
        "grant_type": "client_credentials",
        "resource": AUDIENCE,
        "client_id": "spiffe://example.org/agent/planner/x",
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": "t.t.t\r\nX-Evil: 1"},
        {"access_token": "t t"},
        {"access_token": "t\u00fc"},
        {"access_token": "t" * 65537},
        {"token_type": "Bearer"},
        {"token_type": None},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 1.5},
        {"expires_in": True},
        {"expires_in": "300"},
        {"expires_in": 24 * 3600 + 1},
        {"scope": ["ledger.read"]},
    ],
    ids=repr,
)
def test_what_is_no_bound_token_is_not_used(far: FarSide, machine: Machine, changed: dict[str, Any]) -> None:
    far.answers[TOKEN_PATH] = TOKEN | changed
    with pytest.raises(Unreachable, match=r"token cannot be read|not JSON"):
        AgentSession(machine, ASKED).token()


def test_a_scope_that_is_as_asked_for_may_be_left_out(far: FarSide, machine: Machine) -> None:
    far.answers[TOKEN_PATH] = {name: value for name, value in TOKEN.items() if name != "scope"}
    asked = Asked("planner", AUDIENCE, ("ledger.read", "ledger.write"))
    assert AgentSession(machine, asked).token().scope == "ledger.read ledger.write"


@pytest.mark.parametrize(
    "changed",
    [
        {"format": "wit-svid"},
        {"agent": "helper"},
        {"token": None},
        {"token": "c.c.c\r\nX-Evil: 1"},
        {"spiffe_id": None},
        {"spiffe_id": "spiffe://x y"},
        {"expires_at": "tomorrow"},
        {"expires_at": 7},
    ],
    ids=repr,
)
def test_another_credential_than_was_asked_for_is_sent_to_nobody(
    far: FarSide, machine: Machine, changed: dict[str, Any]
) -> None:
    far.answers[ATTEST] = attested(**changed)
    with pytest.raises(Unreachable):
        AgentSession(machine, ASKED).token()
    assert far.count(TOKEN_PATH) == 0


def test_two_credentials_are_one_too_many(far: FarSide, machine: Machine) -> None:
    far.answers[ATTEST] = attested() | {"credentials": attested()["credentials"] * 2}
    with pytest.raises(Unreachable):
        AgentSession(machine, ASKED).token()


@pytest.mark.parametrize("value", [None, "", 7, "n 1", "n" * 513, 'n"1', "n\u00fc", ["n-1"]], ids=repr)
def test_a_challenge_that_is_none_is_not_signed(far: FarSide, machine: Machine, value: Any) -> None:
    far.answers[CHALLENGE_PATH] = {"attestation_challenge": value}
    with pytest.raises(Unreachable, match="challenge cannot be read"):
        AgentSession(machine, ASKED).token()
    assert far.count(TOKEN_PATH) == 0


@pytest.mark.parametrize("name", ["use_attestation_challenge", "use_dpop_nonce"])
def test_a_challenge_that_grew_old_is_replaced_once(far: FarSide, machine: Machine, name: str) -> None:
    answers = iter([error(name, "n-2"), json_of(TOKEN)])
    far.answers[TOKEN_PATH] = lambda: next(answers)
    assert AgentSession(machine, ASKED).token().text == "t.t.t"
    far.answers[TOKEN_PATH] = error(name, "n-3")
    before = far.count(TOKEN_PATH)
    with pytest.raises(Refusal):
        AgentSession(machine, ASKED).token()
    assert far.count(TOKEN_PATH) == before + 2


def json_of(members: dict[str, Any]) -> bytes:
    return answer(json.dumps(members).encode())


def test_without_a_new_challenge_nothing_is_tried_again(far: FarSide, machine: Machine) -> None:
    far.answers[TOKEN_PATH] = error("use_dpop_nonce")
    with pytest.raises(Refusal):
        AgentSession(machine, ASKED).token()
    assert far.count(TOKEN_PATH) == 1


@pytest.mark.parametrize("name", ["invalid_client", "invalid_grant", "use_fresh_attestation"])
def test_an_attestation_that_is_taken_no_more_is_replaced_once(
    far: FarSide, machine: Machine, name: str
) -> None:
    clock = Clock()
    session = AgentSession(machine, ASKED, clock=clock)
    session.token()
    far.answers[TOKEN_PATH] = error(name, status=401 if name == "invalid_client" else 400)
    clock.ahead = 250_000
    with pytest.raises(Refusal) as refusal:
        session.token()
    assert refusal.value.error == name
    assert (far.count(ATTEST), far.count(TOKEN_PATH)) == (2, 3)


def test_what_attesting_anew_cannot_change_is_not_tried_so(far: FarSide, machine: Machine) -> None:
    clock = Clock()
    session = AgentSession(machine, ASKED, clock=clock)
    session.token()
    far.answers[TOKEN_PATH] = error("invalid_scope")
    clock.ahead = 250_000
    with pytest.raises(Refusal):
        session.token()
    assert (far.count(ATTEST), far.count(TOKEN_PATH)) == (1, 2)


@pytest.mark.parametrize(
    ("bad", "told"),
    [(AWAY, Unreachable), (answer({"code": "slow_down"}, 429), Refusal)],
    ids=["away", "busy"],
)
def test_while_the_service_is_away_the_token_is_used_as_long_as_it_lasts_and_no_longer(
    far: FarSide, machine: Machine, bad: bytes, told: type[Exception]
) -> None:
    clock = Clock()
    session = AgentSession(machine, ASKED, clock=clock)
    first = session.token()
    far.answers[TOKEN_PATH] = bad
    clock.ahead = 250_000
    assert session.token() is first
    clock.ahead = 300_001
    with pytest.raises(told):
        session.token()
    far.answers[TOKEN_PATH] = TOKEN | {"access_token": "u.u.u"}
    assert session.token().text == "u.u.u"


def test_a_refusal_ends_the_token_at_once(far: FarSide, machine: Machine) -> None:
    """A machine that is told no does not go on with what it had."""
    clock = Clock()
    session = AgentSession(machine, ASKED, clock=clock)
    session.token()
    far.answers[TOKEN_PATH] = error("invalid_target")
    clock.ahead = 250_000
    with pytest.raises(Refusal):
        session.token()
    clock.ahead = 0
    with pytest.raises(Refusal):
        session.headers("GET", URL)


def test_a_machine_that_is_refused_asks_for_no_token(far: FarSide, machine: Machine) -> None:
    far.answers[ATTEST] = answer({"code": "posture_rejected", "detail": "No."}, 403)
    with pytest.raises(Refusal, match=r"posture_rejected.*No\."):
        AgentSession(machine, ASKED).token()
    assert far.count(TOKEN_PATH) == 0


def test_what_is_secret_is_not_shown(far: FarSide, machine: Machine) -> None:
    asked = Asked("planner", AUDIENCE, (), "user.token.text")
    shown = repr(asked) + repr(AgentSession(machine, asked).token())
    assert "user.token.text" not in shown
    assert "t.t.t" not in shown


def test_nothing_is_left_in_the_tpm_whatever_the_service_says(far: FarSide, newcomer: Agent) -> None:
    enrolled = member_of(far, newcomer)
    machine = Machine.enrolled(enrolled.tpm.tcti, enrolled.state)
    for path, bad in ((TOKEN_PATH, AWAY), (CHALLENGE_PATH, b"nonsense"), (ATTEST, AWAY)):
        far.answers[path] = bad
        with pytest.raises(Unreachable):
            AgentSession(machine, ASKED).token()
    assert leftovers(enrolled.tpm) == {}
