"""Services and machines for the tests that come in through the front door."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attester import Machine, TestMaker
from tests.deployment import Deployment, policy_for


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A service on SQLite that admits the TPMs of one maker; no policy yet."""
    made = Deployment.create(tmp_path / "service", settings={"audit_unproven": "0"})
    yield made
    assert made.audit_faults() == ()
    made.close()


@pytest.fixture
def machine(deployment: Deployment) -> Machine:
    """An enrolled machine whose registers the policy in force accepts."""
    machine = deployment.machine()
    deployment.apply(policy_for(machine))
    return machine


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One service for all tests of a module that change neither its policy nor its trust: new machines of the
    maker are accepted as they are. Its audit is whole when they have ended."""
    made = Deployment.create(tmp_path_factory.mktemp("plant") / "service", settings={"audit_unproven": "0"})
    made.apply(policy_for(Machine.create(TestMaker.create())))
    yield made
    assert made.audit_faults() == ()
    made.close()


@pytest.fixture
def gateway(plant: Deployment) -> Machine:
    """A machine of the plant, just enrolled."""
    return plant.machine()
