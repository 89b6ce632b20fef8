"""Services and machines for the tests that come in through the front door."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attester import Machine
from tests.deployment import Deployment, policy_for


@pytest.fixture()
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A service on SQLite that admits the TPMs of one maker; no policy yet."""
    made = Deployment.create(tmp_path / "service", settings={"audit_unproven": "0"})
    yield made
    made.close()


@pytest.fixture()
def machine(deployment: Deployment) -> Machine:
    """An enrolled machine whose registers the policy in force accepts."""
    machine = deployment.machine()
    deployment.apply(policy_for(machine))
    return machine
