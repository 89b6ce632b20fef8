"""The command line, run in this process, and a directory that it made."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from attestd.cli.main import main
from tests.attestd.cli.operator import Operator

Run = Callable[..., Result]


@pytest.fixture
def attestd() -> Run:
    """Run `attestd ARGUMENTS…`; the outcome has exit_code, stdout and stderr."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def served(attestd: Run, tmp_path: Path) -> Path:
    """The configuration of a fresh directory, as `attestd init` makes it."""
    made = attestd("init", tmp_path / "srv", "--trust-domain", "example.org")
    assert made.exit_code == 0, made.stderr
    return tmp_path / "srv" / "attestd.toml"


@pytest.fixture
def operator(served: Path) -> Operator:
    """An operator at that directory, without devices and policies."""
    return Operator(served.parent)
