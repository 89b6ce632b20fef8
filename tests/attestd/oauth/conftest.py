"""A service whose agents authenticate as OAuth clients."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attestd.oauth.agents import WAYS, Agent, new_agent, prepared
from tests.attester import Machine
from tests.deployment import Deployment

MakeAgent = Callable[..., Agent]


@pytest.fixture(scope="module")
def shared_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One service for the tests of a module that change nothing of it."""
    made = Deployment.create(tmp_path_factory.mktemp("oauth") / "service", settings={"audit_unproven": "0"})
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_machine(shared_deployment: Deployment) -> Machine:
    return prepared(shared_deployment)


@pytest.fixture(scope="module")
def agent_of(shared_deployment: Deployment, shared_machine: Machine) -> MakeAgent:
    """By method: an agent that may use it. Made once."""
    made: dict[str, Agent] = {}

    def agent_for(method: str) -> Agent:
        if method not in made:
            form, name, _ = WAYS[method]
            made[method] = new_agent(shared_deployment, shared_machine, form, name=name)
        return made[method]

    return agent_for


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A service of the test's own."""
    made = Deployment.create(tmp_path / "service", settings={"audit_unproven": "0"})
    yield made
    made.close()
