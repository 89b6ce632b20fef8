"""`scripts/setup` ends at once where all is there, and asks for one command where it may not install."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READ = (
    "requirements.lock",
    "pyproject.toml",
    "scripts/setup",
    "tests/interop/node/package-lock.json",
    "tests/interop/node/package.json",
)
"""What the set-up depends on, in the order in which it hashes them."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the set-up reads, and a place for stand-ins of the system's commands."""
    for name in READ:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    return tmp_path


def stand_in(checkout: Path, name: str, script: str) -> None:
    path = checkout / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", str(checkout / "scripts/setup")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def mark_as_set_up(checkout: Path) -> None:
    """What a finished set-up leaves."""
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    (checkout / "tests/interop/node/node_modules").mkdir()
    recipe = f"cat {' '.join(READ)} | sha256sum | cut -c1-64; pwd"
    made = subprocess.run(["bash", "-c", recipe], cwd=checkout, capture_output=True, check=True)
    (checkout / ".venv/.set-up").write_bytes(made.stdout)


def refuse_to_install(checkout: Path) -> None:
    """A machine where nothing is installed and this user may install nothing."""
    stand_in(checkout, "id", "echo 1000")
    stand_in(checkout, "sudo", "exit 1")
    stand_in(checkout, "dpkg-query", "exit 1")


def test_a_second_run_ends_at_once_and_says_nothing(checkout: Path) -> None:
    mark_as_set_up(checkout)
    refuse_to_install(checkout)
    started = time.monotonic()
    done = run(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - started < 1


def test_without_the_right_to_install_it_prints_the_one_command(checkout: Path) -> None:
    refuse_to_install(checkout)
    done = run(checkout)
    assert done.returncode == 1
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends swtpm libtss2-dev"
        in done.stderr
    )
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("changed", READ)
def test_a_change_of_what_it_reads_runs_it_again(checkout: Path, changed: str) -> None:
    mark_as_set_up(checkout)
    refuse_to_install(checkout)
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    assert run(checkout).returncode == 1
