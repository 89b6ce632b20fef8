"""Each agent has its share of a minute, and none takes another's."""

from attestd.agent.running.budget import Budget

NOW = 1_800_000_000_000


def spent(budget: Budget, agent: str, *, sharing: int, now: int = NOW, tries: int = 100) -> int:
    return sum(budget.spend(agent, sharing=sharing, now=now) for _ in range(tries))


def test_ag_6_who_asks_without_end_leaves_the_others_their_share() -> None:
    budget = Budget(30)
    assert [spent(budget, agent, sharing=3) for agent in ("a", "b", "c", "a")] == [10, 10, 10, 0]


def test_one_alone_has_the_whole() -> None:
    assert spent(Budget(30), "a", sharing=1) == spent(Budget(30), "a", sharing=0) == 30


def test_ag_6_all_together_have_no_more_than_the_whole() -> None:
    budget = Budget(3)
    assert [spent(budget, str(number), sharing=40) for number in range(5)] == [1, 1, 1, 0, 0]
    # The settings named one more agent after the others had spent what was theirs.
    budget = Budget(30)
    assert [spent(budget, "a", sharing=1, tries=25), spent(budget, "b", sharing=2)] == [25, 5]


def test_a_minute_later_it_is_there_again_and_nothing_is_kept_of_who_asks_no_more() -> None:
    budget = Budget(4)
    assert spent(budget, "a", sharing=2) == 2
    assert [spent(budget, "a", sharing=2, now=NOW + late) for late in (59_999, 60_000)] == [0, 2]


def test_a_clock_that_was_set_back_holds_nobody_up() -> None:
    budget = Budget(4)
    assert spent(budget, "a", sharing=2) == 2
    assert spent(budget, "a", sharing=2, now=NOW - 1) == 2
