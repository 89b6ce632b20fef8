"""Which of the locked packages does an installed attestd need? Prints their part of requirements.lock.

Core, `device` and `postgres` of pyproject.toml with everything that these need, as the packages installed
beside this interpreter say; none of the tools of `dev` and `build`.
"""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
EXTRAS = ("device", "postgres")
NOT_NEEDED = frozenset({"pip"})
"""sqlite-utils names it for a command of its own that installs plugins; nothing of ours runs that."""


def wanted() -> list[str]:
    """The requirements of the distribution with its extras, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *extras]


def closure(requirements: Iterable[str]) -> frozenset[str]:
    """The names of all packages that are needed. PackageNotFoundError for one that is not installed here."""
    pending = [Requirement(one) for one in requirements]
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if name in NOT_NEEDED or (name, extra) in seen:
                continue
            seen.add((name, extra))
            pending += _needs(name, extra)
    return frozenset(name for name, _ in seen)


def _needs(name: str, extra: str) -> Iterator[Requirement]:
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def locked(lock: str, names: frozenset[str]) -> str:
    """The blocks of these packages in the lock file. ValueError for one that is not in it."""
    blocks = re.findall(r"^[a-z0-9].*(?:\n[ \t].*)*", lock, re.MULTILINE)
    found = {re.split(r"==", block, maxsplit=1)[0]: block for block in blocks}
    if missing := sorted(names - found.keys()):
        raise ValueError(f"requirements.lock lacks {', '.join(missing)}; run `make lock`")
    return "".join(found[name] + "\n" for name in sorted(names))


if __name__ == "__main__":
    lock_file = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    sys.stdout.write(locked(lock_file, closure(wanted())))
