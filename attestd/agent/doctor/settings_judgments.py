"""Can the agent do what its settings ask for, here?"""

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attestd.agent.doctor.check import Check, Unread
from attestd.agent.doctor.machine_readings import CAP_CHOWN, CAP_SYS_PTRACE, Place, Runner, gives_away
from attestd.agent.errors import plain
from attestd.agent.settings import Settings
from attestd.agent.workload.rules import Rule

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LONGEST_SOCKET = 107
_NUMBERS = {"CAP_CHOWN": CAP_CHOWN, "CAP_SYS_PTRACE": CAP_SYS_PTRACE}


def judge_settings(source: Place | Unread | None, settings: Settings) -> Iterator[Check]:
    """`source` is their file, None without one; Unread where it cannot be used."""
    name = "settings"
    if source is None:
        yield Check(name, "ok", "no file: only this machine's own identity is kept")
    elif isinstance(source, Unread):
        yield Check(name, "fail", plain(source.why), "correct it; what follows is judged without it")
    elif source.mode & _OTHERS_WRITE:
        said = f"others may write {source.path} (mode {source.mode:o})"
        yield Check(name, "fail", said, f"chmod go-w {source.path}")
    else:
        agents = ", ".join(each.agent for each in settings.workloads) or "no workload"
        yield Check(name, "ok", f"{source.path}: {agents}")


def judge_callers(rules: Sequence[Rule], unknown: Sequence[str]) -> Iterator[Check]:
    """Does this machine know everybody whom the workloads are for?"""
    if unknown:
        fix = "correct the name or make it, then: systemctl reload attestd-agent"
        yield Check("callers", "fail", "; ".join(unknown), fix)
    elif rules:
        yield Check("callers", "ok", f"all users and groups of {len(rules)} workloads are known")


def judge_rights(rules: Sequence[Rule], runner: Runner) -> Iterator[Check]:
    """Has the agent the capabilities that its workloads need, and only some do?"""
    seen = [rule for rule in rules if rule.paths is not None and rule.users != frozenset({runner.uid})]
    given = [rule for rule in rules if gives_away(rule, runner)]
    yield from _right("CAP_SYS_PTRACE", seen, "to know the programs of other users by their path", runner)
    yield from _right("CAP_CHOWN", given, "to give the files to the workload's user", runner)


def _right(name: str, rules: Sequence[Rule], why: str, runner: Runner) -> Iterator[Check]:
    if not rules:
        return
    agents = ", ".join(rule.workload.agent for rule in rules)
    needed = f"needed by {agents} {why}"
    fix = f"systemctl edit attestd-agent.service: AmbientCapabilities={name} and CapabilityBoundingSet={name}"
    if name == "CAP_CHOWN":
        fix += ", SystemCallFilter=@chown"
    has = runner.may(_NUMBERS[name])
    if not runner.runs and runner.looker == 0:
        # Root has it, and that says nothing of the unit, which has what it is given.
        yield Check(name, "warn", f"{needed}; no agent runs whose rights could be looked at", fix)
    elif has:
        yield Check(name, "ok", f"{needed}; the agent has it" if runner.runs else f"{needed}; it is there")
    else:
        yield Check(name, "fail", f"{needed}, and not there", fix)


def judge_folders(folders: Mapping[str, bool | Unread]) -> Iterator[Check]:
    """Can each workload's files be written where they are to go: in memory, and where nobody else can
    exchange them?"""
    for agent, found in folders.items():
        if isinstance(found, Unread):
            said, _, fix = found.why.rpartition("; ")
            fix = fix if said else "correct `files`"
            yield Check("files", "fail", f"{agent}: {plain(said or found.why)}", plain(fix))
        else:
            yield Check("files", "ok", f"{agent}: " + ("there" if found else "made when there is something"))


def judge_socket(socket: Place, directory: Place, above: Place, runner: Runner) -> Iterator[Check]:
    """Can programs find the agent there, and nobody put a socket in its place? `directory` is the one it is
    in, `above` the one that is in."""
    name, where = "socket", directory.path
    if len(str(socket.path).encode()) > _LONGEST_SOCKET:
        said = f"{socket.path} has more than {_LONGEST_SOCKET} bytes"
        yield Check(name, "fail", said, "choose a shorter path for `socket`")
    elif socket.kind not in (None, "socket"):
        yield Check(name, "fail", f"{socket.path} is no socket", "move it away, or choose another `socket`")
    elif directory.kind is None:
        yield _unmade(name, where, above, runner)
    elif directory.kind != "directory":
        yield Check(name, "fail", f"{where} is no directory (a link is none)", "choose another `socket`")
    elif directory.uid not in (0, runner.uid) or directory.mode & _OTHERS_WRITE:
        fix = f"choose another `socket`, or: chown {runner.uid} {where} && chmod 755 {where}"
        yield Check(name, "fail", f"others may write into {where}", fix)
    elif socket.kind is None:
        yield Check(name, "ok", f"{socket.path} is made when the agent runs")
    else:
        yield Check(name, "ok", f"{socket.path}")


def _unmade(name: str, where: Path, above: Place, runner: Runner) -> Check:
    """systemd makes it for the units; who runs the agent otherwise may have to."""
    bit = stat.S_IWUSR if above.uid == runner.uid else stat.S_IWOTH
    mine = above.mode & bit
    if above.kind == "directory" and (runner.uid == 0 or mine):
        return Check(name, "ok", f"{where} is made when the agent runs")
    fix = "systemctl start attestd-agent.socket makes it; or choose another `socket`"
    return Check(name, "warn", f"there is no {where}, and the agent's user {runner.uid} cannot make it", fix)


def judge_runner(runner: Runner) -> Iterator[Check]:
    """Is what was seen what the agent sees?"""
    if runner.looker == runner.uid:
        yield Check(
            "user", "ok", f"user {runner.looker}, as the agent" + (", which runs" if runner.runs else "")
        )
    else:
        said = f"looked at as user {runner.looker}, and the agent runs as user {runner.uid}"
        fix = "for what that one may open: setpriv --reuid=UID --init-groups attestd agent doctor"
        yield Check("user", "warn", said, fix.replace("UID", str(runner.uid)))
