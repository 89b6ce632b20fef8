"""What one caller may take is bounded, and what is refused is told in few words."""

import logging
from contextlib import ExitStack
from functools import partial

import pytest
from grpclib.exceptions import GRPCError

from attestd.agent.workload import bounds
from attestd.agent.workload.bounds import Bounds, Refused


def test_one_user_has_its_connections_and_others_theirs() -> None:
    kept = Bounds()
    assert [kept.enter(1) for _ in range(bounds.CONNECTIONS_OF_USER + 1)].count(True) == 64
    assert kept.enter(2)
    kept.leave(1, stranger=False)
    assert kept.enter(1)
    assert not kept.enter(1)


def test_all_together_have_an_end() -> None:
    kept = Bounds()
    entered = sum(kept.enter(uid) for uid in range(1000) for _ in range(2))
    assert entered == bounds.CONNECTIONS
    assert not kept.enter(5000)


def test_all_without_a_rule_have_few_together() -> None:
    kept = Bounds()
    assert [kept.enter_stranger() for _ in range(40)].count(True) == bounds.CONNECTIONS_OF_STRANGERS
    kept.enter(1)
    kept.leave(1, stranger=True)
    assert kept.enter_stranger()
    assert not kept.enter_stranger()


@pytest.mark.parametrize(("kind", "most"), [("call", bounds.CALLS_OF_USER), ("work", bounds.WORKS_OF_USER)])
def test_what_is_open_at_once_is_bounded_for_each_user(kind: str, most: int) -> None:
    kept = Bounds()
    one = partial(kept.call, stranger=False) if kind == "call" else kept.work
    opened = [one(1) for _ in range(most)]
    for each in opened:
        each.__enter__()
    with pytest.raises(GRPCError), one(1):
        pass
    with one(2):
        pass
    opened.pop().__exit__(None, None, None)
    with one(1):
        pass


def test_what_a_users_strangers_ask_takes_nothing_from_its_entitled_programs() -> None:
    kept = Bounds()
    with ExitStack() as opened:
        for _ in range(bounds.CALLS_OF_USER):
            opened.enter_context(kept.call(1, stranger=True))
        with pytest.raises(GRPCError), kept.call(1, stranger=True):
            pass
        with kept.call(1, stranger=False):
            pass


def test_nothing_is_remembered_of_who_has_left() -> None:
    kept = Bounds()
    for uid in range(100):
        kept.enter(uid)
        with kept.call(uid, stranger=True), kept.work(uid):
            pass
        kept.leave(uid, stranger=False)
    assert not any((kept._connections, kept._calls, kept._works))


def test_refusals_are_all_counted_and_few_are_told(caplog: pytest.LogCaptureFixture) -> None:
    now = 1_900_000_000_000
    refused = Refused(lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            refused.note("x")
        assert (refused.count, len(caplog.records)) == (1000, bounds.TOLD_A_MINUTE)
        now += 60_000
        refused.note("y")
        assert [each.message for each in caplog.records[10:]] == [
            "refused 990 more local callers before",
            "refused a local caller: y",
        ]
        now -= 3_600_000
        refused.note("z")
        assert caplog.records[-1].message == "refused a local caller: z"
