"""Who may be which agent: all kinds of conditions hold, and what is not known lets nobody in."""

import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.workload.caller import Caller
from attestd.agent.workload.rules import Rule, match, read_rules, workloads_of
from tests.attestd.agent.workload.domain import workload

CALLER = Caller(7, 1000, frozenset({100, 200}), "telemetry.service", "/usr/bin/telemetry")
NAMES = {"telemetry": 1000, "meters": 200, "root": 0}


def number(name: str) -> int:
    return NAMES[name]


def rule(**conditions: Any) -> Rule:
    (made,), _ = read_rules([workload("telemetry", **conditions)], user=number, group=number)
    return made


@pytest.mark.parametrize(
    "conditions",
    [
        {"user": ["telemetry"]},
        {"user": ["1000"]},
        {"user": ["root", "telemetry"]},
        {"group": ["meters"]},
        {"group": ["100"]},
        {"unit": ["other.service", "telemetry.service"]},
        {"path": ["/usr/bin/telemetry"]},
        {"user": ["telemetry"], "group": ["meters"], "unit": ["telemetry.service"]},
        {"user": ["nobody-here", "telemetry"]},
    ],
)
def test_a_caller_that_meets_every_kind_of_condition_is_let_in(conditions: dict[str, list[str]]) -> None:
    assert match(rule(**conditions), CALLER)


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"user": ["root"]},
        {"user": ["nobody-here"]},
        {"group": ["1000"]},
        {"unit": ["telemetry"]},
        {"unit": ["Telemetry.service"]},
        {"path": ["/usr/bin"]},
        {"path": ["/usr/bin/telemetry2"]},
        {"user": ["telemetry"], "unit": ["other.service"]},
        {"user": ["nobody-here"], "unit": ["telemetry.service"]},
        {"user": ["telemetry"], "group": ["nobody-here"]},
        {"user": ["-1"]},
        {"user": ["4294967295"]},
        {"user": ["99999999999999999999"]},
        {"user": ["\u0661\u0660\u0660\u0660"]},
        {"user": ["telemetry\x00"]},
    ],
)
def test_one_kind_that_does_not_hold_or_none_at_all_lets_nobody_in(conditions: dict[str, list[str]]) -> None:
    assert not match(rule(**conditions), CALLER)


@pytest.mark.parametrize("missing", ["unit", "path"])
def test_what_cannot_be_told_of_a_caller_meets_no_condition(missing: str) -> None:
    value = {"unit": "telemetry.service", "path": "/usr/bin/telemetry"}[missing]
    known = {"unit": "telemetry.service", "path": "/usr/bin/telemetry", missing: None}
    assert not match(rule(**{missing: [value]}), Caller(7, 1000, frozenset(), **known))


def test_the_superuser_is_a_user_like_others() -> None:
    superuser = Caller(1, 0, frozenset({0}), "init.scope", "/usr/lib/systemd/systemd")
    assert not match(rule(user=["telemetry"]), superuser)
    assert match(rule(user=["root"]), superuser)


def test_names_that_nobody_has_are_said() -> None:
    asked = [workload("a", user=["nobody-here", "1000"]), workload("b", group=["meters", "strangers"])]
    _, unknown = read_rules(asked, user=number, group=number)
    assert unknown == ("a: there is no user nobody-here", "b: there is no group strangers")


def test_a_caller_may_have_several_in_the_order_of_the_configuration() -> None:
    asked = [workload("b", user=["1000"]), workload("c", user=["1"]), workload("a", group=["200"])]
    rules, _ = read_rules(asked, user=number, group=number)
    assert [each.agent for each in workloads_of(rules, CALLER)] == ["b", "a"]


def test_names_are_looked_up_in_the_machines_own_tables() -> None:
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    rules, unknown = read_rules([workload("a", user=[user], group=[group])])
    assert unknown == ()
    assert match(rules[0], Caller(7, os.getuid(), frozenset({os.getgid()})))


def test_a_path_is_the_program_behind_its_links(tmp_path: Path) -> None:
    program, link = tmp_path / "telemetry-2.1", tmp_path / "telemetry"
    program.touch()
    link.symlink_to(program)
    named = rule(path=[str(link)])
    assert match(named, Caller(7, 1, frozenset(), path=os.path.realpath(program)))
    assert not match(named, Caller(7, 1, frozenset(), path=str(link)))
