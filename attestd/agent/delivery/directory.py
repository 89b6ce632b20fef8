"""Is this a directory that secrets may lie in, and that nobody else can turn into another one?

It is walked to from the root, each step by descriptor and without following a symbolic link; whoever could
change a step on the way is trusted already, or the way is refused. What is written goes below the descriptor
that was judged, whatever happens to the names meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from attestd.agent.errors import Misconfigured

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""Filesystems that forget when the power goes, as the kernel names them."""

_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the files in it are to be, where that is somebody else than this process: the directory stays
    ours, so that the owner reads what lies there and changes nothing."""

    uid: int
    gid: int


@contextmanager
def secret_directory(path: Path, *, owner: Owner | None = None, in_memory: bool = True) -> Iterator[int]:
    """A descriptor of the directory, made where it is missing: 0700, or 0710 with the owner's group.

    What is there already is judged as it is; but one that was ours alone becomes the owner's to pass through,
    if it is certain that it was made for this: who owns a step of the way may have put another one there.
    `in_memory`: it must forget when the power goes. Misconfigured with the fix.
    """
    whole = Path(os.path.normpath(path))
    trusted = {0, os.geteuid()} | ({owner.uid} if owner is not None else set())
    here, firm = os.open("/", _PASS), True
    try:
        for step in whole.parents[-2::-1] if len(whole.parents) > 1 else ():
            here = _stepped(here, step, _PASS, in_memory=in_memory)
            _judge_step(here, step, trusted)
            firm = firm and _is_firm(here, os.geteuid())
        here = _stepped(here, whole, _OPEN, owner, in_memory=in_memory)
        if firm and _ours_alone(os.fstat(here), os.geteuid()) and owner is not None:
            with suppress(OSError):  # Without the right to it, it is judged as it is.
                make_private(here, owner)
        _judge_end(here, whole, owner, os.geteuid())
        if in_memory:
            _judge_memory(here, whole)
        yield here
    finally:
        os.close(here)


def foreseen(path: Path, *, us: int, owner: Owner | None = None, in_memory: bool = True) -> bool:
    """Would `secret_directory` accept it of the user `us`? Nothing is made; whether it is there already.
    Misconfigured with the fix."""
    whole = Path(os.path.normpath(path))
    trusted = {0, us} | ({owner.uid} if owner is not None else set())
    here, firm = os.open("/", _PASS), True
    try:
        for step in (*(whole.parents[-2::-1] if len(whole.parents) > 1 else ()), whole):
            try:
                there = os.open(step.name, _OPEN if step == whole else _PASS, dir_fd=here)
            except FileNotFoundError:
                if in_memory:
                    _judge_memory(here, step)
                _judge_making(here, step, us)
                return False
            except OSError as error:
                raise _cannot(step, error) from None
            os.close(here)
            here = there
            if step != whole:
                _judge_step(here, step, trusted)
                firm = firm and _is_firm(here, us)
        opens = firm and _ours_alone(os.fstat(here), us)
        _judge_end(here, whole, None if opens else owner, us)
        if in_memory:
            _judge_memory(here, whole)
        return True
    finally:
        os.close(here)


def filesystem(directory: int) -> str:
    """The type of the filesystem that the descriptor is on; "unknown" for one that this process does not
    see mounted."""
    told = Path(f"/proc/self/fdinfo/{directory}").read_text(encoding="ascii").split()
    mount = told[told.index("mnt_id:") + 1]
    # The root of a mount may have any bytes in its name.
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(" ")
        if fields[0] == mount:
            return fields[fields.index("-", 6) + 1]
    return "unknown"


def _stepped(here: int, step: Path, how: int, owner: Owner | None = None, *, in_memory: bool) -> int:
    """One step down, `here` closed; the directory is made where there is none."""
    made = False
    try:
        try:
            there = os.open(step.name, how, dir_fd=here)
        except FileNotFoundError:
            if in_memory:
                _judge_memory(here, step)
            with suppress(FileExistsError):  # Somebody else was faster; theirs is judged like any other.
                os.mkdir(step.name, 0o700 if how == _OPEN else 0o755, dir_fd=here)
                made = True
            there = os.open(step.name, how, dir_fd=here)
    except OSError as error:
        raise _cannot(step, error) from None
    os.close(here)
    # Whoever owns the parent may have put another one in its place since: one in which something is.
    if made and how == _OPEN and os.fstat(there).st_uid == os.geteuid() and not os.listdir(there):
        make_private(there, owner)
    return there


def make_private(directory: int, owner: Owner | None) -> None:
    """A directory of ours for us alone, or for the owner to pass through and not to change."""
    if owner is not None:
        os.fchown(directory, -1, owner.gid)
    os.fchmod(directory, 0o700 if owner is None else 0o710)


def _judge_step(here: int, step: Path, trusted: set[int]) -> None:
    """Whoever owns it or may write into it could put another directory below it; where the sticky bit is
    set, the owner of what is below alone."""
    told = os.fstat(here)
    if told.st_uid not in trusted:
        raise Misconfigured(
            f"{step} belongs to user {told.st_uid}, who could exchange what is in it; name a directory "
            "below /run"
        )
    if told.st_mode & _OTHERS_WRITE and not told.st_mode & stat.S_ISVTX:
        raise Misconfigured(
            f"others may write into {step}; run `chmod go-w {step}` or name another directory"
        )


def _judge_memory(here: int, path: Path) -> None:
    """What lies here, or is made here, forgets when the power goes."""
    if (found := filesystem(here)) not in IN_MEMORY:
        raise Misconfigured(
            f"{path} is on {found}, where a secret would outlive the power; name a directory below /run or "
            "on another tmpfs"
        )


def _judge_making(here: int, step: Path, us: int) -> None:
    """By the owner's rights and everybody's: a group that has come to a user is not asked for."""
    told = os.fstat(here)
    mine = bool(told.st_mode & stat.S_IWUSR) if told.st_uid == us else bool(told.st_mode & stat.S_IWOTH)
    if us != 0 and not mine:
        raise Misconfigured(
            f"{step} is not there, and user {us} may not make it in {step.parent}; name a directory below "
            "the agent's own in /run"
        )


def _judge_end(here: int, path: Path, owner: Owner | None, us: int) -> None:
    told = os.fstat(here)
    ours = {us} | ({owner.uid} if owner is not None else set())
    if told.st_uid not in ours:
        raise Misconfigured(
            f"{path} belongs to user {told.st_uid}, not to this agent; remove it, it is made as it must be"
        )
    if told.st_mode & _OTHERS_WRITE:
        raise Misconfigured(f"others may write into {path}; run `chmod go-w {path}`")
    if owner is not None and not _passable(told, owner):
        raise Misconfigured(
            f"{path} lets user {owner.uid} not pass to its files; remove it, it is made as it must be"
        )


def _ours_alone(told: os.stat_result, us: int) -> bool:
    """As it was made before the files in it had another owner."""
    return told.st_uid == us and stat.S_IMODE(told.st_mode) == 0o700


def _is_firm(here: int, us: int) -> bool:
    """Can nobody but us and root exchange what is in this step, which was judged already?"""
    return os.fstat(here).st_uid in (0, us)


def _passable(told: os.stat_result, owner: Owner) -> bool:
    """By the first class of rights that fits, as the kernel looks."""
    if told.st_uid == owner.uid:
        return bool(told.st_mode & stat.S_IXUSR)
    if told.st_gid == owner.gid:
        return bool(told.st_mode & stat.S_IXGRP)
    return bool(told.st_mode & stat.S_IXOTH)


def _cannot(step: Path, error: OSError) -> Misconfigured:
    if step.is_symlink():
        return Misconfigured(
            f"{step} is a symbolic link; name the directory itself: {os.path.realpath(step)}"
        )
    return Misconfigured(f"{step}: {error.strerror}; name a directory that this agent may use")
