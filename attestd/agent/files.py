"""How do agents get their credentials that read files and nothing else?

Each workload with `files` has what it holds written there, 0600 and whole, and loses it again: each file
when what is in it ends, all at once when the service has refused this machine. Sealed keys stay. When the
agent stops the files stay too: programs go on through its restart, and what has ended works nowhere. The
next agent removes what has ended meanwhile; a reboot clears the tmpfs.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attestd.agent.directory import Owner, secret_directory
from attestd.agent.endings import SEALED, endings, live, names_of
from attestd.agent.errors import Misconfigured
from attestd.agent.generations import Generations
from attestd.agent.holdings import Held, Holdings
from attestd.agent.on_renewal import Commands
from attestd.agent.settings import Workload

FINISH_SECONDS = 5.0
"""For the commands that run when the agent stops."""
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
        self._workloads = {each.agent: each for each in workloads if each.files is not None}
        self._tell, self._commands = tell, Commands(tell) if commands is None else commands
        self._chowns = may_chown() if chowns is None else chowns
        self._ends: dict[str, int] = {}
        self._troubles: dict[str, str] = {}

    def check(self) -> None:
        """Can all of it be written where it is to go? Misconfigured, with the fix, for the first that
        cannot."""
        folders: set[Path] = set()
        for workload in self._workloads.values():
            with self._opened(workload) as (folder, _):
                if folder in folders:
                    raise Misconfigured(
                        f"two workloads have the files {folder}; give each a directory of its own"
                    )
                folders.add(folder)
            uid = _named_user(workload)
            if uid is not None and uid != os.geteuid() and not self._chowns:
                self._tell(
                    f"the files of {workload.agent} stay this agent's own; it needs CAP_CHOWN to give them "
                    "to the workload's user"
                )

    def show(self, holdings: Holdings, *, now: int, dead: Collection[str] = ()) -> Mapping[str, str]:
        """Make the files be what is held and may be used now; `dead` are agents whose credentials ended
        before their time. An agent that has nothing yet keeps what an earlier run left, as long as it lasts.

        What could not be done, by agent: it is tried again at the next call, and told once.
        """
        troubles = {}
        for agent, workload in self._workloads.items():
            try:
                self._show(workload, holdings.held.get(agent), dead=agent in dead, now=now)
            except Misconfigured as error:
                troubles[agent] = str(error)
            except OSError as error:
                troubles[agent] = f"{workload.files}: {error.strerror or error}"
        for agent, trouble in troubles.items():
            if self._troubles.get(agent) != trouble:
                self._tell(f"the files of {agent} could not be written: {trouble}")
        self._troubles = troubles
        return troubles

    def due(self) -> int | None:
        """When the next file ends (milliseconds); None while none will."""
        return min(self._ends.values(), default=None)

    def reconfigure(self, workloads: Sequence[Workload]) -> None:
        """Other workloads from now on; of one that is gone or writes elsewhere nothing is left."""
        after = {each.agent: each for each in workloads if each.files is not None}
        for agent, workload in list(self._workloads.items()):
            if agent not in after or after[agent].files != workload.files:
                self.show(Holdings({}, {}, None), now=0, dead={agent})
                self._ends.pop(agent, None)
        self._workloads = after

    def close(self) -> None:
        """Waits a little for commands that run; the files stay."""
        self._commands.finish(FINISH_SECONDS)

    def _show(self, workload: Workload, held: Held | None, *, dead: bool, now: int) -> None:
        agent = workload.agent
        with self._opened(workload) as (folder, files):
            found = {name: files.read(name) for name in files.present(names_of(agent))}
            there = {name: content for name, content in found.items() if content is not None}
            fresh = {} if dead or held is None else live(agent, held.files, now=now)
            kept = {} if dead or held is not None else live(agent, there, now=now)
            sealed = {name: content for name, content in fresh.items() if name.endswith(SEALED)}
            there |= {name: content for name in sealed if (content := files.read(name)) is not None}
            changed = any(there.get(name) != content for name, content in fresh.items())
            if changed:
                files.publish(fresh)
            else:
                files.sweep()
            files.remove(found.keys() - fresh.keys() - kept.keys())
            self._note(agent, fresh | kept, now)
        if changed and workload.on_renewal:
            self._commands.run(workload.on_renewal, agent=agent, files=folder)

    def _note(self, agent: str, shown: Mapping[str, bytes], now: int) -> None:
        ends = [end for end in endings(agent, shown).values() if end is not None and end > now]
        self._ends.pop(agent, None)
        if ends:
            self._ends[agent] = min(ends)

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


def _named_user(workload: Workload) -> int | None:
    """The number of the one user that its callers must be; Misconfigured for one that is not here."""
    owner = _owner_of(workload)
    return None if owner is None else owner.uid


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
