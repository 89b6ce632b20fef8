"""How do several files change at once for whoever reads them?

Each set is a generation: a directory of its own, written whole before anybody is shown it. Then each file
replaces its predecessor under its name, and last the link STEM.current, in one step each:

    telemetry.svid.pem  telemetry.key.pem  bundle.pem        regular files, each whole, the latest
    telemetry.current -> .telemetry.4f1c…/                   the same files, all of one round

Who reads two files that belong together resolves the link once and reads both there: the generation before
stays until the next one comes. A writer that was killed leaves a generation that nobody was shown; the next
one sweeps it. Every name is below one descriptor, and no symbolic link is followed.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from attestd.agent.delivery.directory import Owner, make_private
from attestd.agent.errors import Misconfigured

SIZE_LIMIT = 4 << 20
"""Bytes that are read back of one file."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINKED = ".shown"
"""Ends the second name of a file in a generation, until it is shown."""


class Generations:
    """In the directory of this descriptor, under names that begin with `stem`; files are the owner's, 0600,
    where one is given, else ours. OSError from all of it, Misconfigured where something is in the way."""

    def __init__(self, directory: int, stem: str, owner: Owner | None = None) -> None:
        self._directory, self._owner = directory, owner
        self._link = f"{stem}.current"
        self._name = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{16}}")
        self._stem = stem

    def publish(self, files: Mapping[str, bytes]) -> None:
        """These files, and all of them of one round under the link. What is there under other names stays.

        What cannot be written whole is not shown, and nothing is left of it.
        """
        generation = f".{self._stem}.{secrets.token_hex(8)}"
        before = self._current()
        self._check_free(files)
        os.mkdir(generation, 0o700, dir_fd=self._directory)
        try:
            with _opened(generation, self._directory) as made:
                make_private(made, self._owner)
                for name, content in files.items():
                    self._write(made, name, content)
                os.symlink(generation, self._link, dir_fd=made)
                os.fsync(made)
                for name in files:
                    os.rename(name + _LINKED, name, src_dir_fd=made, dst_dir_fd=self._directory)
                os.rename(self._link, self._link, src_dir_fd=made, dst_dir_fd=self._directory)
        except BaseException:
            if self._current() != generation:
                self._drop(generation)
            raise
        os.fsync(self._directory)
        self._drop_all_but({generation, before})

    def read(self, name: str) -> bytes | None:
        """The file of this name as it was published; None where it is not there, or not as it must be."""
        try:
            descriptor = os.open(name, _READ, dir_fd=self._directory)
        except OSError:
            return None
        try:
            told = os.fstat(descriptor)
            uid = os.geteuid() if self._owner is None else self._owner.uid
            if stat.S_IMODE(told.st_mode) != 0o600 or not stat.S_ISREG(told.st_mode) or told.st_uid != uid:
                return None
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(SIZE_LIMIT + 1)
        finally:
            os.close(descriptor)
        return content if len(content) <= SIZE_LIMIT else None

    def remove(self, names: Collection[str]) -> None:
        """These files, here and in every generation; of a generation without files nothing is left."""
        for generation in self._generations():
            with _opened(generation, self._directory) as made:
                _unlink(names, made)
                empty = not os.listdir(made)
            if empty:
                self._drop(generation)
        _unlink(names, self._directory)
        self._unlink_dangling()

    def sweep(self) -> None:
        """What killed writers left, and what was shown before: every generation but the one that is."""
        self._drop_all_but({self._current()})

    def clear(self) -> None:
        """Every generation, and the link."""
        self._drop_all_but(())

    def shown(self) -> bool:
        """Does the link lead to a generation?"""
        return self._current() in self._generations()

    def present(self, names: Collection[str]) -> set[str]:
        """Which of these names are taken, by whatever."""
        return set(names) & set(os.listdir(self._directory))

    def _check_free(self, names: Collection[str]) -> None:
        """Only a directory is in the way of a file: then none of them is shown."""
        for name in self.present({*names, self._link}):
            if stat.S_ISDIR(os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_mode):
                raise Misconfigured(f"{name} is a directory; move it away")

    def _write(self, made: int, name: str, content: bytes) -> None:
        descriptor = os.open(name, _DRAFT, 0o600, dir_fd=made)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            # While it is ours: of somebody else's file the kernel lets us make no second name.
            os.link(name, name + _LINKED, src_dir_fd=made, dst_dir_fd=made, follow_symlinks=False)
            os.fchmod(descriptor, 0o600)
            if self._owner is not None:
                os.fchown(descriptor, self._owner.uid, self._owner.gid)
            os.fsync(descriptor)

    def _current(self) -> str | None:
        """The generation that is shown."""
        try:
            target = os.readlink(self._link, dir_fd=self._directory)
        except OSError:
            return None
        return target if self._name.fullmatch(target) else None

    def _generations(self) -> list[str]:
        """Ours alone: a name that looks like one may be somebody else's."""
        found = []
        for name in os.listdir(self._directory):
            if self._name.fullmatch(name):
                told = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                if stat.S_ISDIR(told.st_mode) and told.st_uid == os.geteuid():
                    found.append(name)
        return found

    def _drop_all_but(self, kept: Collection[str | None]) -> None:
        for generation in self._generations():
            if generation not in kept:
                self._drop(generation)

    def _drop(self, generation: str) -> None:
        with suppress(OSError):  # Whatever somebody put into it is not ours to remove, and keeps it.
            with _opened(generation, self._directory) as made:
                _unlink(os.listdir(made), made)
            os.rmdir(generation, dir_fd=self._directory)
        self._unlink_dangling()

    def _unlink_dangling(self) -> None:
        current = self._current()
        if current is not None and current not in self._generations():
            os.unlink(self._link, dir_fd=self._directory)


def remove_tree(name: str, directory: int) -> None:
    """A directory below the descriptor with all that is in it, without following a link. OSError."""
    with _opened(name, directory) as inner:
        for entry in os.scandir(inner):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.name, inner)
            else:
                os.unlink(entry.name, dir_fd=inner)
    os.rmdir(name, dir_fd=directory)


@contextmanager
def _opened(name: str, directory: int) -> Iterator[int]:
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unlink(names: Collection[str], directory: int) -> None:
    for name in names:
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=directory)
