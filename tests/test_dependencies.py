"""Is everything that is installed pinned by version and hash, and above the known security floors? (SC-1)"""

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent

FLOORS = {"joserfc": "1.6.7", "cryptography": "48.0.1", "pyjwt": "2.13.0", "werkzeug": "3.1"}
"""Releases below these have known vulnerabilities that concern us."""

_PINNED = re.compile(r"([a-z0-9][a-z0-9-]*)==([^ ]+) \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def locked(text: str) -> dict[str, str]:
    """Version by package. AssertionError for a pin without a hash and for a line that is neither of them."""
    found: dict[str, str] = {}
    hashes = {}
    name = ""
    for line in text.splitlines():
        if match := _PINNED.fullmatch(line):
            name, found[match[1]] = match[1], match[2]
        elif _HASH.fullmatch(line):
            hashes[name] = True
        else:
            assert not line or line.lstrip().startswith("#"), f"neither pin, hash nor comment: {line}"
    assert found.keys() == hashes.keys()
    return found


def requirements() -> list[Requirement]:
    """Everything that the project asks for, whatever the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    return [Requirement(one) for one in asked]


def below_floor(versions: dict[str, str]) -> list[str]:
    return [name for name, floor in FLOORS.items() if Version(versions[name]) < Version(floor)]


def test_sc_1_everything_is_pinned_by_version_and_hash() -> None:
    versions = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    for requirement in requirements():
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(versions[name]), f"{requirement} is locked as {versions[name]}"


def test_sc_1_no_known_vulnerable_release_is_locked_or_allowed() -> None:
    assert below_floor(locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))) == []
    for requirement in requirements():
        floor = FLOORS.get(requirement.name.lower())
        if floor is not None:
            lowest = min(Version(one.version) for one in requirement.specifier if one.operator == ">=")
            assert lowest >= Version(floor), str(requirement)


def test_a_release_below_its_floor_is_found() -> None:
    good = {"joserfc": "1.8.0", "cryptography": "50.0", "pyjwt": "2.13.0", "werkzeug": "3.1.9"}
    assert below_floor(good) == []
    assert below_floor(good | {"cryptography": "48.0.0"}) == ["cryptography"]


def test_the_distribution_cannot_be_uploaded_by_accident() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]
    assert project["name"] == "attestd-tpm"


def npm_faults(text: str) -> list[str]:
    """Packages without a hash or a version, or with an address from which whoever locked had them."""
    packages = json.loads(text)["packages"]
    faults = [name for name, one in packages.items() if name and not {"integrity", "version"} <= one.keys()]
    return faults + [name for name, one in packages.items() if "resolved" in one]


def test_sc_1_npm_packages_are_pinned_by_version_and_hash() -> None:
    folder = ROOT / "tests/interop/node"
    text = (folder / "package-lock.json").read_text(encoding="utf-8")
    assert npm_faults(text) == []
    asked = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert json.loads(text)["packages"][""]["dependencies"] == asked
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in asked.values())


def test_sc_1_an_npm_package_without_a_hash_or_from_an_address_is_found() -> None:
    loose = {"": {}, "node_modules/a": {"version": "1.0.0"}}
    placed = {"": {}, "node_modules/a": {"version": "1.0.0", "integrity": "sha512-x", "resolved": "x"}}
    assert npm_faults(json.dumps({"packages": loose})) == ["node_modules/a"]
    assert npm_faults(json.dumps({"packages": placed})) == ["node_modules/a"]
