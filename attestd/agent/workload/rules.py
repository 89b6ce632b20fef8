"""Which of this machine's identities may this caller have?

Conditions of different kinds all hold, values of one kind any. A rule without conditions is nobody's, a name
that this machine does not know is nobody, and the superuser is a user like others.
"""

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from attestd.agent.settings import Callers, Workload
from attestd.agent.workload.caller import Caller

MOST_NUMBER = 2**32 - 2
"""Of a user or group; the one above means none."""

Number = Callable[[str], int]
"""A name's number; KeyError for an unknown one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A workload and whom it is for, in numbers; None is no condition, an empty set a condition that nobody
    meets."""

    workload: Workload
    users: frozenset[int] | None
    groups: frozenset[int] | None
    units: frozenset[str] | None
    paths: frozenset[str] | None


def user_number(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def group_number(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def read_rules(
    workloads: Iterable[Workload], *, user: Number = user_number, group: Number = group_number
) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """The rules, in that order, and a sentence for each name that nobody has. Names are looked up now, not
    when somebody calls: what answers slowly then would make all wait."""
    rules, unknown = [], []
    for workload in workloads:
        callers = workload.callers
        users, strangers = _numbers(callers.user, user)
        groups, nobodys = _numbers(callers.group, group)
        rules.append(Rule(workload, users, groups, _texts(callers.unit), _paths(callers)))
        unknown += [f"{workload.agent}: there is no user {name}" for name in strangers]
        unknown += [f"{workload.agent}: there is no group {name}" for name in nobodys]
    return tuple(rules), tuple(unknown)


def match(rule: Rule, caller: Caller) -> bool:
    """Is it for this caller?"""
    held = [
        rule.users is None or caller.uid in rule.users,
        rule.groups is None or not rule.groups.isdisjoint(caller.groups),
        rule.units is None or caller.unit in rule.units,
        rule.paths is None or caller.path in rule.paths,
    ]
    named = (rule.users, rule.groups, rule.units, rule.paths)
    return all(held) and any(condition is not None for condition in named)


def workloads_of(rules: Iterable[Rule], caller: Caller) -> tuple[Workload, ...]:
    """All that the caller may have, in the configuration's order."""
    return tuple(rule.workload for rule in rules if match(rule, caller))


def _numbers(named: frozenset[str], number: Number) -> tuple[frozenset[int] | None, list[str]]:
    if not named:
        return None, []
    found, unknown = set(), []
    for name in sorted(named):
        known = _number(name, number)
        if known is None:
            unknown.append(name)
        else:
            found.add(known)
    return frozenset(found), unknown


def _number(name: str, number: Number) -> int | None:
    """A number written as one means itself, whatever it may be called."""
    if name.isascii() and name.isdigit():
        return int(name) if len(name) <= 10 and int(name) <= MOST_NUMBER else None
    with suppress(KeyError, ValueError, UnicodeError):
        return number(name)
    return None


def _texts(named: frozenset[str]) -> frozenset[str] | None:
    return named or None


def _paths(callers: Callers) -> frozenset[str] | None:
    """As the kernel will name them: /bin may be a link to /usr/bin, and a name one to its version."""
    return frozenset(os.path.realpath(path) for path in callers.path) or None
