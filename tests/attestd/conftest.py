"""One running service for all tests of the agent, and a machine that is enrolled there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Agent, Serving
from tpm.swtpm import SoftwareTpm


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`attestd serve` on SQLite with the policy `FRESH`."""
    with Serving(tmp_path_factory.mktemp("serving") / "srv") as running:
        yield running


@pytest.fixture
def newcomer(serving: Serving, software_tpm: SoftwareTpm, tmp_path: Path) -> Agent:
    """A new machine that has not enrolled."""
    return Agent(software_tpm, tmp_path / "state", serving.url)


@pytest.fixture
def agent(newcomer: Agent) -> Agent:
    """A new machine that the policy accepts."""
    newcomer.enroll()
    return newcomer
