"""As whom does the agent run here, what may it do, and where does it keep its things?"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attestd.agent.delivery.directory import Owner, foreseen
from attestd.agent.delivery.files import holds_secrets
from attestd.agent.doctor.check import Unread, made
from attestd.agent.lock import running_agent
from attestd.agent.state import Membership, State
from attestd.agent.workload.rules import Rule

CAP_CHOWN, CAP_SYS_PTRACE = 0, 19


@dataclass(frozen=True, slots=True)
class Runner:
    """The agent: the process that runs, whose effective `capabilities` these are; or, where none runs, the
    owner of what there is of its own, and what this process may. `looker` is this process's user."""

    uid: int
    capabilities: int
    runs: bool
    looker: int

    def may(self, capability: int) -> bool:
        return bool(self.capabilities >> capability & 1)


@dataclass(frozen=True, slots=True)
class Place:
    """What is at a path: "directory", "socket", "link", "file" or None for nothing, whose it is and who may
    write. Not looked at: what is above it."""

    path: Path
    kind: str | None
    uid: int = 0
    mode: int = 0


@dataclass(frozen=True, slots=True)
class StateReading:
    """What is remembered of the enrolment."""

    place: Place | Unread
    membership: Membership | Unread | None
    recipe: bytes | Unread | None


def read_runner(state: Path, socket: Path, *, processes: Path = Path("/proc")) -> Runner:
    """Who runs, as the lock of the running agent says; nothing is written. Before a machine has joined, the
    folder that the package made for the socket tells the superuser whom the agent will run as."""
    looker, who = os.geteuid(), running_agent(state)
    number = (who or "").removeprefix("pid ")
    running = made(lambda: _status(processes / number)) if number.isdigit() else None
    if isinstance(running, tuple):
        return Runner(*running, True, looker)
    _, own = _status(processes / "self")
    owner = made(lambda: os.lstat(state).st_uid)
    if isinstance(owner, Unread) and looker == 0:
        owner = made(lambda: os.lstat(socket.parent).st_uid)
    return Runner(looker if isinstance(owner, Unread) else owner, own, False, looker)


def _status(process: Path) -> tuple[int, int]:
    """The effective user and capabilities of a process."""
    text = (process / "status").read_text(encoding="utf-8", errors="replace")
    told = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(told["Uid"].split()[1]), int(told["CapEff"], 16)


def read_place(path: Path) -> Place:
    """A symbolic link is told as one, not followed. OSError where the way there is closed."""
    try:
        told = os.lstat(path)
    except FileNotFoundError:
        return Place(path, None)
    kinds = {stat.S_IFDIR: "directory", stat.S_IFSOCK: "socket", stat.S_IFLNK: "link"}
    return Place(path, kinds.get(stat.S_IFMT(told.st_mode), "file"), told.st_uid, stat.S_IMODE(told.st_mode))


def read_state(directory: Path) -> StateReading:
    state = State(directory)
    return StateReading(made(lambda: read_place(directory)), made(state.membership), made(state.recipe))


def read_folders(rules: tuple[Rule, ...], runner: Runner) -> Mapping[str, bool | Unread]:
    """By agent: is its directory for files there and fit (True), or would it be made (False); or what is
    wrong with it."""
    found: dict[str, bool | Unread] = {}
    for rule in rules:
        files = rule.workload.files
        if files is not None:
            owner = owner_of(rule, runner)
            found[rule.workload.agent] = made(
                lambda files=files, owner=owner, rule=rule: foreseen(  # type: ignore[misc]
                    files, us=runner.uid, owner=owner, in_memory=holds_secrets(rule.workload)
                )
            )
    return found


def owner_of(rule: Rule, runner: Runner) -> Owner | None:
    """Whose the files are to be, if the agent may give them away. The user's primary group is not asked for:
    it decides nothing here."""
    for uid in rule.users or ():
        if gives_away(rule, runner) and runner.may(CAP_CHOWN):
            return Owner(uid, uid)
    return None


def gives_away(rule: Rule, runner: Runner) -> bool:
    """Are its files for one other user?"""
    users = rule.users or frozenset()
    return rule.workload.files is not None and len(users) == 1 and runner.uid not in users
