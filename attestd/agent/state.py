"""What does the device remember of its enrolment?

A directory of its owner alone (0700) with a few files (0600), each replaced as a whole: the power may go at
any moment. None is a secret: the attestation key's recipe makes its key in this TPM and in no other.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestd.agent.errors import Misconfigured, NotEnrolled

_RECIPE = "ak.recipe"
_CA = "ca.pem"
_MEMBERSHIP = "enrollment.json"
_LAST = "last.json"
_LOGS = "logs.json"
_STANDING = "standing.json"
_ALWAYS = ("server", "device_id", "state", "ek")
_DRAFT = re.compile(r"\..+\.[0-9a-f]{16}")
_DRAFT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Membership:
    """Where the device is enrolled, as which, and with which endorsement key ("p256", "L-1", …); of which
    trust domain it is since its first accepted attestation."""

    server: str
    device_id: str
    state: str
    ek: str
    trust_domain: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The state directory; made when something is first written into it."""

    directory: Path

    def recipe(self) -> bytes | None:
        """The attestation key's recipe; None before the first enrolment."""
        return self._read(_RECIPE)

    def keep_recipe(self, recipe: bytes) -> None:
        self._write(_RECIPE, recipe)

    def membership(self) -> Membership | None:
        """The enrolment; None before it. Misconfigured for a file that is not ours."""
        members = self._read_json(_MEMBERSHIP)
        if members is None:
            return None
        trust_domain = members.get("trust_domain")
        if any(name not in members for name in _ALWAYS) or not isinstance(trust_domain, str | None):
            raise self._damaged(_MEMBERSHIP)
        return Membership(**{name: str(members[name]) for name in _ALWAYS}, trust_domain=trust_domain)

    def enrolment(self) -> tuple[Membership, bytes]:
        """Membership and recipe of a machine that is enrolled; NotEnrolled for another."""
        membership, recipe = self.membership(), self.recipe()
        if membership is None or recipe is None:
            raise NotEnrolled(
                f"{self.directory} has no enrolment; run `attestd agent enroll --server URL` first"
            )
        return membership, recipe

    def mend(self) -> bool:
        """Remove an enrolment that cannot be read: enrolling makes it anew, of the same device. Was it so?"""
        try:
            self.membership()
        except Misconfigured:
            (self.directory / _MEMBERSHIP).unlink(missing_ok=True)
            return True
        return False

    def keep_membership(self, membership: Membership) -> None:
        members = {name: getattr(membership, name) for name in Membership.__slots__}
        self._write_json(_MEMBERSHIP, {name: value for name, value in members.items() if value is not None})

    def ca(self) -> Path | None:
        """PEM of the only authority that is trusted at the service; None where none was kept."""
        path = self.directory / _CA
        return path if path.exists() else None

    def keep_ca(self, pem: bytes) -> None:
        self._write(_CA, pem)

    def last(self) -> Mapping[str, Any] | None:
        """How the last attestation ended."""
        return self._read_json(_LAST)

    def keep_last(self, outcome: Mapping[str, Any]) -> None:
        self._write_json(_LAST, outcome)

    def known_logs(self) -> Mapping[str, Any] | None:
        """What the service said that it knows of this machine's logs; a damaged file is nothing lost."""
        try:
            return self._read_json(_LOGS)
        except Misconfigured:
            return None

    def keep_known_logs(self, known: Mapping[str, Any]) -> None:
        self._write_json(_LOGS, known)

    def standing(self) -> Mapping[str, Any] | None:
        """What the running agent last told of itself; a damaged file is nothing lost: it is told anew."""
        try:
            return self._read_json(_STANDING)
        except Misconfigured:
            return None

    def keep_standing(self, told: Mapping[str, Any]) -> None:
        self._write_json(_STANDING, told)

    def sweep(self, *, now: int) -> None:
        """Remove what was being written when the power went, or the process: drafts that are older than any
        write takes. `now` in milliseconds. What cannot be removed stays."""
        for path in self.directory.glob(".*"):
            with suppress(OSError):
                # One from the future is of a clock that was set back, or of this very millisecond.
                age = abs(now / 1000 - path.lstat().st_mtime)
                if _DRAFT.fullmatch(path.name) and age >= _DRAFT_SECONDS:
                    path.unlink()

    def _read_json(self, name: str) -> Mapping[str, Any] | None:
        raw = self._read(name)
        if raw is None:
            return None
        try:
            members = json.loads(raw)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            raise self._damaged(name)
        return members

    def _write_json(self, name: str, members: Mapping[str, Any]) -> None:
        self._write(name, json.dumps(dict(members), indent=1).encode() + b"\n")

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.directory / name, content, owned_as_directory=True)

    def _damaged(self, name: str) -> Misconfigured:
        return Misconfigured(f"{self.directory / name} is damaged; remove it and enrol again")


def lured(descriptor: int, directory: Path) -> bool:
    """Is this root, at a file that whoever owns the directory may have linked into it from elsewhere?"""
    return os.geteuid() == 0 != directory.stat().st_uid and os.fstat(descriptor).st_nlink != 1


def own_as_directory(descriptor: int, directory: Path) -> None:
    """Give a file that root makes to whoever owns its directory: a command that an operator ran as root must
    not lock the agent out, which runs as a user of its own. Nothing of somebody else's is given away."""
    if os.geteuid() == 0 and not lured(descriptor, directory):
        owner = directory.stat()
        if (owner.st_uid, owner.st_gid) != (0, 0):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def replace_file(path: Path, content: bytes, *, owned_as_directory: bool = False) -> None:
    """The whole new file or the whole old one, 0600, whenever the power goes; a symbolic link is replaced,
    not followed. It belongs to this process's user, or to the directory's."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            if owned_as_directory:
                own_as_directory(descriptor, path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
