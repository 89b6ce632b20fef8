"""What the Debian package is made of, without building it, which `make test-package` does."""

import ctypes
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.debian.copyright import stanzas
from scripts.debian.runpath import without_runpath
from scripts.debian.runtime import closure, locked, wanted

ROOT = Path(__file__).parent.parent
DEBIAN = ROOT / "scripts/debian"
SCRIPTS = ("postinst", "prerm", "postrm")

TOOLS = {
    "pip",
    "pip-tools",
    "pytest",
    "mypy",
    "ruff",
    "hypothesis",
    "grpcio",
    "spiffe",
    "setuptools",
    "hatchling",
}


def test_everything_that_runs_is_bundled_and_no_tool_of_development() -> None:
    names = closure(wanted())
    assert {"click", "cryptography", "gunicorn", "grpclib", "tpm2-pytss", "psycopg-binary", "h2"} <= names
    assert names & TOOLS == set()


def test_what_is_bundled_is_pinned_and_hashed_as_in_the_lock_file() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = closure(wanted())
    part = locked(lock, names)
    assert len(re.findall(r"^[a-z0-9].*==", part, re.MULTILINE)) == len(names)
    for block in re.split(r"\n(?=[a-z0-9])", part):
        assert "--hash=sha256:" in block
        assert block.strip() in lock


def test_a_package_that_is_not_locked_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"requirements\.lock lacks nowhere; run `make lock`"):
        locked("click==8 \\\n    --hash=sha256:00\n", frozenset({"click", "nowhere"}))


@pytest.mark.parametrize("script", SCRIPTS)
def test_maintainer_scripts_are_plain_shell_and_stop_at_the_first_failure(script: str) -> None:
    path = DEBIAN / script
    assert path.stat().st_mode & 0o111
    assert "\nset -e\n" in path.read_text(encoding="utf-8")
    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0


@pytest.mark.parametrize(
    ("script", "verb", "kept"),
    [
        ("postrm", "remove", True),
        ("postrm", "upgrade", True),
        ("postrm", "purge", False),
        ("prerm", "upgrade", True),
    ],
)
def test_state_goes_on_purge_alone(script: str, verb: str, kept: bool, tmp_path: Path) -> None:
    """The script itself, with its paths below a directory of the test's."""
    text = (DEBIAN / script).read_text(encoding="utf-8")
    places = ("etc/attestd", "var/lib/attestd", "var/lib/attestd-agent", "run/attestd-agent")
    for place in places:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "kept").write_text("state")
    text = re.sub(r"(?<=\s)/(etc|var|run|usr)/", rf"{tmp_path}/\1/", text)
    subprocess.run(["/bin/sh", "-c", text, script, verb], check=True)
    assert [(tmp_path / place).exists() for place in places] == [kept] * 4


def test_whose_the_bundled_packages_are_is_in_the_copyright_file(tmp_path: Path) -> None:
    for name, lines in {
        "spdx-1.dist-info": "Name: spdx\nVersion: 1\nLicense-Expression: MIT\nAuthor: A. Nobody\n",
        "old-2.dist-info": "Name: old\nVersion: 2\nClassifier: License :: OSI Approved :: BSD License\n",
        "attestd_tpm-3.dist-info": "Name: attestd-tpm\nVersion: 3\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").write_text(f"Metadata-Version: 2.4\n{lines}\n")
    told = stanzas(tmp_path)
    assert "/spdx-1.dist-info/*\nCopyright: A. Nobody\nLicense: MIT\nComment: spdx 1\n" in told
    assert "Copyright: the authors of old\nLicense: BSD License\n" in told
    assert "attestd" not in told.replace("usr/lib/attestd", "")


def test_a_wheel_carries_the_units(tmp_path: Path) -> None:
    """`install-service` of an attestd that pip installed finds them inside of the package."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    carried = {name.removeprefix("attestd/systemd/") for name in names if name.startswith("attestd/systemd/")}
    assert carried == {path.name for path in (ROOT / "scripts/systemd").iterdir()}


@pytest.mark.parametrize(("path", "stays"), [("/build/machine/lib", False), ("$ORIGIN/../own.libs", True)])
def test_no_search_path_of_the_build_machine_goes_into_the_package(
    path: str, stays: bool, tmp_path: Path
) -> None:
    library = tmp_path / "part.so"
    command = [
        "cc",
        "-shared",
        "-x",
        "c",
        "-",
        f"-Wl,-rpath,{path},--no-as-needed",
        "-lm",
        "-o",
        str(library),
    ]
    subprocess.run(command, input=b"int answer(void) { return 42; }", check=True)
    before = library.read_bytes()
    library.write_bytes(without_runpath(before))
    assert (library.read_bytes() == before) == stays
    assert ctypes.CDLL(str(library)).answer() == 42
    told = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
    assert (f"[{path}]" in told) == stays
    assert "Shared library: [libm.so" in told


def test_what_is_no_library_stays_as_it_is() -> None:
    assert without_runpath(b"#!/bin/sh\n") == b"#!/bin/sh\n"
