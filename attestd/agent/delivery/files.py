"""How do agents get their credentials that read files and nothing else?

Each workload with `files` has what it holds written there, 0600 and whole, and loses it again: each file
when what is in it ends, all at once when the agent does not hold it any more. Sealed keys stay. When the
agent stops the files stay too: programs go on through its restart, and what has ended works nowhere. The
next agent removes what has ended meanwhile; a reboot clears the tmpfs.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attestd.agent.delivery.directory import Owner, secret_directory
from attestd.agent.delivery.endings import SEALED, endings, live, names_of
from attestd.agent.delivery.generations import Generations
from attestd.agent.delivery.on_renewal import Commands
from attestd.agent.errors import Misconfigured, plain
from attestd.agent.holdings import Held, Holdings
from attestd.agent.settings import Workload

FINISH_SECONDS = 1.0
"""For the commands that run when the agent stops."""
AGAIN_MS = 30_000
"""Between two tries at what could not be done."""
_CAP_CHOWN = 0


class Delivery:
    """The files of these workloads. One thread calls it, whenever the picture changes and when `due` says."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        *,
        tell: Callable[[str], None],
        commands: Commands | None = None,
        chowns: bool | None = None,
    ) -> None:
        """`tell` takes what the operator should read, one line each, from any thread. `chowns`: may this
        process give files away? Else the kernel is asked."""
        self._workloads = self._wished = _delivered(workloads)
        self._tell, self._commands = tell, Commands(tell) if commands is None else commands
        self._chowns = may_chown() if chowns is None else chowns
        self._leaving: list[Workload] = []
        self._due: dict[tuple[str, Path | None], int] = {}
        self._had: set[str] = set()
        self._swept: set[tuple[str, Path | None]] = set()
        self.troubles: Mapping[str, str] = {}
        """What could not be done, by agent, and is tried again soon."""

    def check(self) -> None:
        """Can all of it be written where it is to go? Misconfigured, with the fix, for the first that
        cannot."""
        folders: set[str] = set()
        for agent, workload in self._workloads.items():
            with self._opened(workload) as (folder, _):
                if (written := os.path.normpath(folder)) in folders:
                    raise Misconfigured(
                        f"two workloads have the files {folder}; give each a directory of its own"
                    )
                folders.add(written)
            if _owner_of(workload) is not None and not self._chowns:
                self._tell(
                    f"the files of {agent} stay this agent's own; it needs CAP_CHOWN to give them to the "
                    "workload's user"
                )

    def show(self, holdings: Holdings, *, now: int) -> None:
        """Make the files be what is held and may be used now (milliseconds). For whom nothing was held yet
        keeps what an earlier agent left, as long as it lasts. What cannot be done is told once."""
        if self._wished is not self._workloads:
            self._take(self._wished)
        troubles = self._leave(now)
        for agent, workload in self._workloads.items():
            held = holdings.held.get(agent)
            if held is not None:
                self._had.add(agent)
            if (trouble := self._tried(workload, held, now)) is not None:
                troubles[agent] = f"{troubles[agent]}; {trouble}" if agent in troubles else trouble
        for agent, trouble in troubles.items():
            if self.troubles.get(agent) != trouble:
                self._tell(f"the files of {agent}: {trouble}")
        self.troubles = troubles

    def due(self) -> int | None:
        """When the next file ends, or what failed is tried again (milliseconds); None where nothing is to
        come."""
        return min(self._due.values(), default=None)

    def forget(self, agents: Iterable[str]) -> None:
        """Of these an earlier agent's files do not stay either, from the next `show` on: they are not
        entitled to what is in them any more."""
        self._had.update(agents)

    def reconfigure(self, workloads: Sequence[Workload]) -> None:
        """Other workloads from the next `show` on; of one that is gone or writes elsewhere nothing is left.
        From any thread."""
        self._wished = _delivered(workloads)

    def close(self) -> None:
        """Waits a little for commands that run; the files stay."""
        self._commands.finish(FINISH_SECONDS)

    def _take(self, after: Mapping[str, Workload]) -> None:
        there = {_place(workload) for workload in after.values()}
        left = {_place(each): each for each in (*self._leaving, *self._workloads.values())}
        self._leaving = [each for place, each in left.items() if place not in there]
        for each in self._leaving:
            self._had.add(each.agent)
            self._swept.discard(_place(each))
        self._workloads = after

    def _leave(self, now: int) -> dict[str, str]:
        """Remove what those had that are gone or write elsewhere, until that is done. What is in the way, by
        agent."""
        troubles: dict[str, str] = {}
        leaving, self._leaving = self._leaving, []
        for each in leaving:
            if (trouble := self._tried(each, None, now)) is None:
                continue
            self._leaving.append(each)
            before = f"{troubles[each.agent]}; " if each.agent in troubles else ""
            troubles[each.agent] = f"{before}what is left there is to be removed: {trouble}"
        return troubles

    def _tried(self, workload: Workload, held: Held | None, now: int) -> str | None:
        """What was in the way, if anything; then it is due again soon."""
        self._due[_place(workload)] = now + AGAIN_MS
        try:
            self._show(workload, held, now)
        except Misconfigured as error:
            return str(error)
        except OSError as error:
            return f"{workload.files}: {error.strerror or error}"
        except Exception as error:  # What one workload's directory holds must not end what all others have.
            return f"{workload.files}: {type(error).__name__}: {plain(error)}"
        return None

    def _show(self, workload: Workload, held: Held | None, now: int) -> None:
        agent = workload.agent
        with self._opened(workload) as (folder, files):
            found = {name: files.read(name) for name in files.present(names_of(agent))}
            there = {name: content for name, content in found.items() if content is not None}
            fresh = {} if held is None else live(agent, held.files, now=now)
            kept = {} if agent in self._had else live(agent, there, now=now)
            seals = {name for name in fresh if name.endswith(SEALED)}
            there |= {name: content for name in seals if (content := files.read(name)) is not None}
            lasting = (fresh.keys() | kept.keys()) - seals
            changed = any(there.get(name) != content for name, content in fresh.items())
            changed |= bool(lasting - kept.keys()) and not files.shown()
            if _place(workload) not in self._swept:
                files.sweep()
            if changed:
                files.publish(fresh)
            files.remove(found.keys() - lasting)
            if not lasting:
                files.clear()
            self._swept.add(_place(workload))
            self._note(workload, fresh | kept, now)
        if changed and workload.on_renewal:
            self._commands.run(workload.on_renewal, agent=agent, files=folder)

    def _note(self, workload: Workload, shown: Mapping[str, bytes], now: int) -> None:
        ends = [end for end in endings(workload.agent, shown).values() if end is not None and end > now]
        self._due.pop(_place(workload), None)
        if ends:
            self._due[_place(workload)] = min(ends)

    @contextmanager
    def _opened(self, workload: Workload) -> Iterator[tuple[Path, Generations]]:
        if workload.files is None:
            raise ValueError("a workload without files")
        owner = _owner_of(workload) if self._chowns else None
        with secret_directory(workload.files, owner=owner, in_memory=holds_secrets(workload)) as directory:
            yield workload.files, Generations(directory, workload.agent, owner)


def holds_secrets(workload: Workload) -> bool:
    """Does it have anything that works for whoever finds it? A key in the TPM's own wrapping does not, nor
    what is bound to it: these may lie on a disk, as sealed keys must that are to open after a reboot."""
    return workload.key != "tpm" or "jwt-svid" in workload.formats


def may_chown() -> bool:
    """Has this process CAP_CHOWN?"""
    told = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    )
    return bool(int(told["CapEff"], 16) >> _CAP_CHOWN & 1)


def _place(workload: Workload) -> tuple[str, Path | None]:
    """What tells its files from all others."""
    return workload.agent, workload.files


def _delivered(workloads: Sequence[Workload]) -> Mapping[str, Workload]:
    return {each.agent: each for each in workloads if each.files is not None}


def _owner_of(workload: Workload) -> Owner | None:
    """None where no user or several may ask, or where it is this process's own."""
    if len(workload.callers.user) != 1:
        return None
    (named,) = workload.callers.user
    try:
        known = pwd.getpwuid(int(named)) if named.isdecimal() else pwd.getpwnam(named)
        owner = Owner(known.pw_uid, known.pw_gid)
    except KeyError:
        if not named.isdecimal():
            raise Misconfigured(
                f"there is no user {named} here, whom the files of {workload.agent} are for; correct `user`"
            ) from None
        owner = Owner(int(named), int(named))
    return None if owner.uid == os.geteuid() else owner
