"""A resource that agents call with tokens, a machine that is enrolled beside it, and a service over TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attestd.agent.tools import Tools, calling
from tests.attestd.web.certificates import Authority
from tests.serving import Agent, Serving
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


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("secure") / "srv"
    with Serving(directory, tls=authority.issue("server")) as running:
        yield running
