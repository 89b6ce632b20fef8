"""A resource that agents call with tokens, and a machine that is enrolled beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attestd.agent.tools import Tools, calling
from tests.serving import Agent
from tpm.swtpm import SoftwareTpm


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    with calling(tmp_path_factory.mktemp("tools") / "all") as running:
        yield running


@pytest.fixture
def caller(tools: Tools, software_tpm: SoftwareTpm, tmp_path: Path) -> Agent:
    """A new machine that may call."""
    made = Agent(software_tpm, tmp_path / "state", tools.service.url)
    made.enroll()
    return made
