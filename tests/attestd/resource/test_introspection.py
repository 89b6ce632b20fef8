"""Is a token refused as soon as its issuer ended it, and nobody let in while the issuer cannot be asked?"""

import contextlib
import threading
import time
from typing import Any

import pytest

from attestd.resource.caller import Denied
from attestd.resource.credentials import ByKey
from attestd.resource.guard import Guard
from tests.attestd.resource.issuer import AUDIENCE, Agent, Issuer, denied
from tests.attester import new_key


class Clock:
    """The wall's, ahead by what the test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def test_oa_9_a_token_that_was_ended_is_refused_within_the_configured_second(
    issuer: Issuer, agent: Agent
) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    token = issuer.token(agent, jti="token-1")
    guard.check(agent.request(token))
    issuer.ended.add("token-1")
    guard.check(agent.request(token))  # believed for the rest of the second
    assert len(issuer.asked) == 1
    clock.ahead = 1.0
    denied(guard, agent.request(token, agent.proof(token)), 401, "invalid_token")
    # And it stays so, whatever is believed of others.
    denied(guard, agent.request(token), 401, "invalid_token")
    guard.check(agent.request(issuer.token(agent)))


def test_with_a_real_clock_a_token_is_refused_within_about_a_second(issuer: Issuer, agent: Agent) -> None:
    guard = issuer.guard(check_every=0.2)
    token = issuer.token(agent, jti="token-1")
    guard.check(agent.request(token))
    issuer.ended.add("token-1")
    ended = time.monotonic()
    refused: list[int] = []
    while not refused and time.monotonic() - ended < 1:
        with contextlib.suppress(Denied):
            guard.check(agent.request(token))
            continue
        refused.append(1)
    assert refused
    denied(guard, agent.request(token), 401, "invalid_token")


def test_with_zero_the_issuer_is_asked_each_time_and_otherwise_once_a_second(
    issuer: Issuer, agent: Agent
) -> None:
    token = issuer.token(agent)
    eager, lazy = issuer.guard(check_every=0), issuer.guard()
    for guard, questions in ((eager, 3), (lazy, 1)):
        issuer.asked.clear()
        for _ in range(3):
            guard.check(agent.request(token))
        assert len(issuer.asked) == questions


def test_an_answer_is_about_one_token(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    issuer.ended.add("token-2")
    guard.check(agent.request(issuer.token(agent, jti="token-1")))
    denied(guard, agent.request(issuer.token(agent, jti="token-2")), 401, "invalid_token")


def test_a_clock_that_goes_back_makes_no_answer_younger(issuer: Issuer, agent: Agent) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    token = issuer.token(agent)
    guard.check(agent.request(token))
    clock.ahead = -30
    issuer.asked.clear()
    issuer.ended.add("other")
    guard.check(agent.request(issuer.token(agent, iat=int(time.time()) - 40)))
    assert len(issuer.asked) == 1
    older = issuer.token(agent, iat=int(time.time()) - 40, jti="other")
    denied(guard, agent.request(older), 401, "invalid_token")


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 500, 503])
def test_whatever_the_issuer_answers_but_200_lets_nobody_in(
    issuer: Issuer, agent: Agent, guard: Guard, status: int
) -> None:
    issuer.status = status
    refusal = denied(guard, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")
    assert ("Retry-After", "1") in refusal.headers
    issuer.status = 200
    guard.check(agent.request(issuer.token(agent)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"active": true, "active": true}',
        b"[" * 100_000,
        b'{"a": "' + b"x" * 300_000,
    ],
)
def test_an_answer_that_cannot_be_read_lets_nobody_in(
    issuer: Issuer, agent: Agent, guard: Guard, raw: bytes
) -> None:
    issuer.raw = raw or b" "
    denied(guard, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")


@pytest.mark.parametrize(
    "says",
    [
        {"active": "true"},
        {"active": 1},
        {"active": None},
        {"jti": "another"},
        {"sub": "another"},
        {"client_id": "spiffe://example.org/agent/other/x"},
        {"iss": "https://other.example.org"},
        {"cnf": {"jkt": "another"}},
        {"act": {"sub": "another"}},
    ],
)
def test_an_answer_that_is_not_about_this_token_lets_nobody_in(
    issuer: Issuer, agent: Agent, guard: Guard, says: dict[str, Any]
) -> None:
    issuer.says = says
    denied(guard, agent.request(issuer.token(agent)), 401, "invalid_token")
    issuer.says = {}
    guard.check(agent.request(issuer.token(agent)))


def test_while_the_issuer_is_gone_nobody_is_let_in_and_then_again(issuer: Issuer, agent: Agent) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    token = issuer.token(agent)
    guard.check(agent.request(token))
    port = issuer.port
    issuer.close()
    clock.ahead = 1.1
    denied(guard, agent.request(token), 503, "temporarily_unavailable")
    issuer.open(port)
    guard.check(agent.request(token))


def test_an_issuer_that_is_slow_is_an_issuer_that_is_gone(issuer: Issuer, agent: Agent) -> None:
    guard = issuer.guard(timeout=0.3)
    issuer.delay = 1.5
    began = time.monotonic()
    denied(guard, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")
    assert time.monotonic() - began < 1.2


def test_threads_with_one_token_wait_for_one_question(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    token = issuer.token(agent)
    guard.check(agent.request(issuer.token(agent)))
    issuer.asked.clear()
    issuer.delay = 0.2
    passed: list[object] = []
    threads = [
        threading.Thread(target=lambda: passed.append(guard.check(agent.request(token)))) for _ in range(6)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(passed), len(issuer.asked)) == (6, 1)


def test_threads_that_waited_for_a_question_that_failed_do_not_ask_it_again(
    issuer: Issuer, agent: Agent
) -> None:
    guard = issuer.guard(timeout=0.3)
    guard.check(agent.request(issuer.token(agent)))
    token = issuer.token(agent)
    issuer.delay = 1.0
    refused: list[int] = []

    def call() -> None:
        try:
            guard.check(agent.request(token))
        except Denied as refusal:
            refused.append(refusal.status)

    threads = [threading.Thread(target=call) for _ in range(6)]
    began = time.monotonic()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert refused == [503] * 6
    assert time.monotonic() - began < 1.2


def test_the_resource_proves_who_it_is_with_a_fresh_assertion_each_time(
    issuer: Issuer, agent: Agent, guard: Guard
) -> None:
    for _ in range(3):  # the issuer takes each assertion once
        guard.check(agent.request(issuer.token(agent)))
    stranger = issuer.resource_key.with_name("stranger.pem")
    from attestd.resource.new_key import new_key as new_resource_key

    new_resource_key(stranger)
    other = issuer.guard(introspection=ByKey(AUDIENCE, stranger))
    denied(other, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")


# --- the issuer's keys --------------------------------------------------------------------------------------


def test_a_key_that_the_issuer_added_is_found_when_a_token_names_it(issuer: Issuer, agent: Agent) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    guard.check(agent.request(issuer.token(agent)))
    issuer.keys["k2"], issuer.signing = new_key("p256"), "k2"
    clock.ahead = 6
    guard.check(agent.request(issuer.token(agent)))
    issuer.signing = "k1"
    guard.check(agent.request(issuer.token(agent)))
    assert issuer.fetched == 2


def test_mt_9_a_key_that_the_issuer_withdrew_is_refused_when_the_set_is_old(
    issuer: Issuer, agent: Agent
) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    old = issuer.token(agent, exp=int(time.time()) + 900)
    guard.check(agent.request(old))
    issuer.keys, issuer.signing = {"k2": new_key("p256")}, "k2"
    clock.ahead = 301
    moment = int(clock())
    denied(guard, agent.request(old, agent.proof(old, iat=moment)), 401, "invalid_token")
    new = issuer.token(agent, iat=moment, exp=moment + 60)
    guard.check(agent.request(new, agent.proof(new, iat=moment)))


def test_strangers_who_invent_keys_cause_one_fetch(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    guard.check(agent.request(issuer.token(agent)))
    for number in range(50):
        invented = issuer.token(agent, header={"kid": f"invented-{number}"})
        denied(guard, agent.request(invented), 401, "invalid_token")
    assert issuer.fetched <= 2
    guard.check(agent.request(issuer.token(agent)))


def test_without_the_issuers_keys_nobody_is_let_in(issuer: Issuer, agent: Agent) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    port = issuer.port
    issuer.close()
    denied(guard, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")
    issuer.open(port)
    clock.ahead = 1.1
    guard.check(agent.request(issuer.token(agent)))


def test_keys_that_were_fetched_are_used_for_an_hour_while_the_issuer_is_gone_but_tokens_are_not_believed(
    issuer: Issuer, agent: Agent
) -> None:
    clock = Clock()
    guard = issuer.guard(clock=clock)
    guard.check(agent.request(issuer.token(agent)))
    issuer.close()
    for ahead in (400, 4000):
        clock.ahead = ahead
        moment = int(clock())
        token = issuer.token(agent, iat=moment, exp=moment + 60)
        denied(guard, agent.request(token, agent.proof(token, iat=moment)), 503, "temporarily_unavailable")


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_keys_of_every_kind_that_the_issuer_has_verify(issuer: Issuer, agent: Agent, kind: str) -> None:
    issuer.keys["k1"] = new_key(kind)
    alg = "PS256" if kind == "rsa" else "ES256"
    issuer.guard().check(agent.request(issuer.token(agent, header={"alg": alg})))
    denied(issuer.guard(), agent.request(issuer.token(agent, header={"alg": "RS256"})), 401, "invalid_token")
