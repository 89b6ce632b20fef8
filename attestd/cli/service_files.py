"""What does systemd need to run attestd, and how does it get there? For `install-service` of both sides.

The units are the ones of `scripts/systemd`, which the Debian package installs too; here they run the attestd
that was called, wherever it is. Files go to /etc, each as a whole; what is right already is left alone. Of
another system's root nothing outside is written or read, wherever its symbolic links lead.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from attestd.cli.failures import Failure, Unusable

PACKAGED = "/usr/bin/attestd"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What the units hide from the service: ProtectHome= and PrivateTmp=."""

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
# Where we write, then where packages do, in the order in which systemd looks.
_UNIT_FOLDERS = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")
_FOLDERS = {
    "sysusers": ("etc/sysusers.d", "usr/lib/sysusers.d"),
    "tmpfiles": ("etc/tmpfiles.d", "usr/lib/tmpfiles.d"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One side: its files in `scripts/systemd`, the user in them, and the unit that is enabled."""

    user: str
    files: tuple[str, ...]
    unit: str
    command: str


SERVER = Part(
    "attestd", ("attestd.sysusers", "attestd.tmpfiles", "attestd.service"), "attestd.service", "serve"
)
AGENT = Part(
    "attestd-agent",
    (
        "attestd-agent.sysusers",
        "attestd-agent.tmpfiles",
        "attestd-agent.socket",
        "attestd-agent.service",
        "attestd-agent-ready.service",
        "attestd-agent.target",
        "attestd-unseal@.service",
    ),
    "attestd-agent.service",
    "agent run",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. Paths are those of the system that the units are for, below `root` here."""

    part: Part
    root: Path
    user: str
    executable: Path
    config: Path | None = None
    writable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, or is to do: a file with its text, or a command."""

    told: str
    path: Path | None = None
    text: str = ""
    command: tuple[str, ...] = ()
    root: Path = Path("/")
    """What the file must be below."""


def check(wanted: Wanted) -> None:
    """Unusable for what would give units that cannot start."""
    if _USER.fullmatch(wanted.user) is None:
        raise Unusable(f'"{wanted.user}" is no name of a system user; it has a to z, digits, - and _')
    for path in (wanted.executable, wanted.config, *wanted.writable):
        if path is not None and (not path.is_absolute() or re.search(r"[\s%\"'\\$]", str(path))):
            raise Unusable(f"{path}: a unit takes absolute paths without spaces, quotes, % and $")
    if wanted.root != Path("/"):
        return  # the paths are another system's, which is not here to look at
    for path in (wanted.executable, Path(sys.base_prefix), wanted.config):
        if path is not None and any(path.is_relative_to(hidden) for hidden in HIDDEN):
            raise Unusable(
                f"{path} is hidden from the service (ProtectHome=, PrivateTmp=); have attestd in, say, "
                "/opt/attestd, and its configuration in /etc/attestd or /var/lib/attestd"
            )


def steps(wanted: Wanted, *, running: bool, now: bool) -> Iterator[Step]:
    """What is to do, in order; nothing for what is so already. `running`: systemd runs on this machine and is
    the one that the units are for."""
    changed = [step for name in wanted.part.files if (step := _write(wanted, name))]
    yield from changed
    root = () if wanted.root == Path("/") else (f"--root={wanted.root}",)
    conf, unit = f"{wanted.part.user}.conf", wanted.part.unit
    if changed or not _has_user(wanted.root, wanted.user):
        yield Step(f"made sure of the user {wanted.user}", command=("systemd-sysusers", *root, conf))
    if changed and running:
        yield Step("made the directories", command=("systemd-tmpfiles", "--create", conf))
        yield Step("loaded the units", command=("systemctl", "daemon-reload"))
    if now:
        start = ("--now",) if running else ()
        yield Step(f"enabled {unit}", command=("systemctl", *root, "enable", *start, unit))


def carry_out(step: Step, run: Callable[[Sequence[str]], None]) -> None:
    """Failure says what could not be done, and the step can be tried again."""
    try:
        if step.path is not None:
            _replace(_below(step.root, step.path.parent), step.path.name, step.text)
        else:
            run(step.command)
    except PermissionError as error:
        raise Failure(f"{step.path or step.command[0]}: {error.strerror}; run the same with sudo") from None
    except FileNotFoundError:
        raise Failure(f"{step.command[0]} is not there; is this a system with systemd?") from None
    except subprocess.CalledProcessError as error:
        why = [*(error.stderr or "").strip().splitlines(), f"status {error.returncode}"]
        raise Failure(f"`{' '.join(step.command)}` failed: {why[0]}") from None


def _replace(folder: Path, name: str, text: str) -> None:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = folder / f".{name}.draft"
    draft.unlink(missing_ok=True)
    with open(draft, "x", encoding="utf-8") as file:  # "x" follows no symbolic link.
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    draft.replace(folder / name)


def _below(root: Path, path: Path) -> Path:
    """Where this really is. Failure where a symbolic link leads out of the root: its own system would follow
    it somewhere else."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise Failure(f"{path} leads out of {root}, to {real}; make that symbolic link a relative one")
    return real


def run_command(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def tell(step: Step, *, dry_run: bool) -> None:
    """A line for what was done; of a dry run all of it, as `systemctl cat` shows units."""
    if not dry_run:
        click.echo(step.told)
    elif step.path is not None:
        click.echo(f"# {step.path}\n{step.text}")
    else:
        click.echo(f"# {' '.join(step.command)}")


def _write(wanted: Wanted, name: str) -> Step | None:
    """The file as it has to be; None where it is so, from here or from a package."""
    text = render(wanted, _source(name).read_text(encoding="utf-8"))
    stem, _, suffix = name.rpartition(".")
    target, folders = (f"{stem}.conf", _FOLDERS[suffix]) if suffix in _FOLDERS else (name, _UNIT_FOLDERS)
    places = [wanted.root / folder / target for folder in folders]
    # A link in the file's own place (a masked unit's to /dev/null) is replaced, and not followed.
    real = [_below(wanted.root, place.parent) / target for place in places]
    found = next((place for place in real if place.is_file() and not place.is_symlink()), None)
    if found is not None and found.read_text(encoding="utf-8") == text:
        return None
    return Step(f"wrote {places[0]}", places[0], text, root=wanted.root)


def render(wanted: Wanted, text: str) -> str:
    """The unit, or the file beside it, for this attestd, this user and this configuration."""
    own, user = wanted.part.user, wanted.user
    text = text.replace(PACKAGED, str(wanted.executable))
    if user != own:
        group = _group_of(wanted.root, user) or user
        text = re.sub(rf"^User={own}$", f"User={user}", text, flags=re.MULTILINE)
        text = re.sub(rf"^Group={own}$", f"Group={group}", text, flags=re.MULTILINE)
        text = re.sub(rf"^(u|m) {own} ", rf"\1 {user} ", text, flags=re.MULTILINE)
        text = re.sub(rf"^(d \S+ \d+) {own} {own} ", rf"\1 {user} {group} ", text, flags=re.MULTILINE)
    if wanted.config is not None:
        start = f"ExecStart={wanted.executable} {wanted.part.command}"
        text = text.replace(f"{start}\n", f"{start} --config {wanted.config}\n")
    if wanted.writable:
        paths = " ".join(str(path) for path in wanted.writable)
        text = re.sub(r"^(StateDirectory=.*)$", rf"\1\nReadWritePaths={paths}", text, flags=re.MULTILINE)
    return text


def _source(name: str) -> Traversable:
    """A file of `scripts/systemd`: inside the installed package, or beside it in a checkout."""
    installed = files("attestd") / "systemd" / name
    if installed.is_file():
        return installed
    checkout = Path(str(files("attestd"))).parent / "scripts" / "systemd" / name
    if checkout.is_file():
        return checkout
    raise Failure(f"this attestd came without {name}; install it anew")


def _accounts(root: Path, name: str) -> Iterator[list[str]]:
    try:
        lines = _below(root, root / "etc" / name).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    yield from (line.split(":") for line in lines if line.count(":") >= 3)


def _has_user(root: Path, user: str) -> bool:
    return any(one[0] == user for one in _accounts(root, "passwd"))


def _group_of(root: Path, user: str) -> str | None:
    """The name of the user's own group; None for a user that is not there yet."""
    number = next((one[3] for one in _accounts(root, "passwd") if one[0] == user), None)
    return next((one[0] for one in _accounts(root, "group") if one[2] == number), number)
