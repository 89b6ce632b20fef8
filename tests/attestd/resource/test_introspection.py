"""Is a token refused as soon as its issuer ended it, and nobody let in while the issuer cannot be asked?"""

import contextlib
import json
import threading
import time
from typing import Any

import pytest

from attestd.resource.caller import Caller, Denied, Refused
from attestd.resource.credentials import ByKey
from attestd.resource.guard import Guard
from attestd.resource.introspection import Introspection
from attestd.resource.jws import read, verify
from attestd.resource.keys import IssuerKeys
from attestd.resource.new_key import new_key as new_resource_key
from attestd.resource.token import Token
from tests.attestd.resource.issuer import AGENT, AUDIENCE, Agent, Issuer, compact, denied
from tests.attester import jwk_of, new_key


def a_token(jti: str) -> Token:
    caller = Caller(
        agent=AGENT,
        user=None,
        user_issuer=None,
        actors=(),
        scopes=frozenset(),
        assurance="ek_verified",
        policy="p@1",
        attestation="a",
        token_id=jti,
        expires_at=2_000_000_000,
    )
    return Token(caller, {"jti": jti}, "", "")


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
    token = issuer.token(agent, iat=int(time.time()) - 40, jti="token-1")
    guard.check(agent.request(token))
    issuer.ended.add("token-1")
    clock.ahead = -30
    denied(guard, agent.request(token), 401, "invalid_token")
    guard.check(agent.request(issuer.token(agent, iat=int(time.time()) - 40)))


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


def test_an_answer_that_drips_is_no_answer(issuer: Issuer, agent: Agent) -> None:
    guard = issuer.guard(timeout=0.3)
    guard.check(agent.request(issuer.token(agent)))
    issuer.drip = 0.1
    began = time.monotonic()
    denied(guard, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")
    assert time.monotonic() - began < 1.2


def test_an_answer_that_is_too_long_is_no_answer(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    issuer.says = {"more": "x" * 300_000}
    denied(guard, agent.request(issuer.token(agent)), 503, "temporarily_unavailable")
    issuer.says = {"more": "x" * 100_000}
    guard.check(agent.request(issuer.token(agent)))


def test_a_connection_that_the_issuer_closed_is_replaced(issuer: Issuer, agent: Agent, guard: Guard) -> None:
    guard.check(agent.request(issuer.token(agent)))
    port = issuer.port
    issuer.close()
    issuer.open(port)
    guard.check(agent.request(issuer.token(agent)))


def test_an_answer_is_as_old_as_its_question() -> None:
    now, asked = [1000.0], []
    token = a_token("token-1")

    def ask(text: str) -> bytes:
        asked.append(text)
        now[0] += 5
        return json.dumps({"active": True, **token.claims}).encode()

    says = Introspection(ask, every=1, clock=lambda: now[0])
    says.require_active("t", token)
    says.require_active("t", token)
    assert len(asked) == 2


def test_answers_are_remembered_within_bounds() -> None:
    asked = []

    def ask(text: str) -> bytes:
        asked.append(text)
        return json.dumps({"active": True, **a_token(text).claims}).encode()

    for capacity, questions in ((1, ["a", "b", "a"]), (2, ["a", "b"])):
        asked.clear()
        says = Introspection(ask, every=60, clock=time.time, capacity=capacity)
        for text in ("a", "b", "a"):
            says.require_active(text, a_token(text))
        assert asked == questions


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


def jwk_set(*members: Any) -> bytes:
    return json.dumps({"keys": list(members)}).encode()


def test_keys_that_were_fetched_are_used_for_an_hour_and_no_longer() -> None:
    key = {**jwk_of(new_key("p256")), "kid": "k1", "use": "sig"}
    answers = [jwk_set(key)]

    def fetch() -> bytes:
        if not answers:
            raise OSError
        return answers.pop()

    keys = IssuerKeys(fetch)
    for now in (1000.0, 1000.0 + 3599):
        assert keys.find("k1", alg="ES256", now=now)
    with pytest.raises(Refused) as caught:
        keys.find("k1", alg="ES256", now=1000.0 + 3600)
    assert caught.value.error == "temporarily_unavailable"


@pytest.mark.parametrize("change", [{"use": "enc"}, {"kid": 7}, {"alg": "ES384"}, {"d": "AA"}, {"x": "AA"}])
def test_a_key_that_is_not_for_signatures_or_is_none_is_not_used(change: dict[str, Any]) -> None:
    good, other = ({**jwk_of(new_key("p256")), "kid": kid, "use": "sig"} for kid in ("k1", "k2"))
    keys = IssuerKeys(lambda: jwk_set(good, {**other, **change}))
    assert keys.find("k1", alg="ES256", now=1000)
    with pytest.raises(ValueError, match="no key"):
        keys.find("k2", alg="ES256", now=1000)


def test_mt_9_two_keys_of_one_name_are_no_key_set() -> None:
    one, other = ({**jwk_of(new_key("p256")), "kid": "k1"} for _ in range(2))
    assert IssuerKeys(lambda: jwk_set(one)).find("k1", alg="ES256", now=1000)
    with pytest.raises(Refused):
        IssuerKeys(lambda: jwk_set(one, other)).find("k1", alg="ES256", now=1000)


def test_a_signature_is_judged_with_the_keys_algorithm_and_not_the_tokens() -> None:
    key = new_key("rsa")
    jws = read(compact(key, {"alg": "PS256", "typ": "at+jwt"}, {"a": 1}), typ="at+jwt", algs=("PS256",))
    verify(jws, key.public_key(), alg="PS256")
    with pytest.raises(ValueError, match="alg"):
        verify(jws, key.public_key(), alg="RS256")


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_keys_of_every_kind_that_the_issuer_has_verify(issuer: Issuer, agent: Agent, kind: str) -> None:
    issuer.keys["k1"] = new_key(kind)
    alg = "PS256" if kind == "rsa" else "ES256"
    issuer.guard().check(agent.request(issuer.token(agent, header={"alg": alg})))
    denied(issuer.guard(), agent.request(issuer.token(agent, header={"alg": "RS256"})), 401, "invalid_token")
