"""An issuer, an agent and a guard of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.resource.guard import Guard
from tests.attestd.resource.issuer import Agent, Issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    made = Issuer(tmp_path)
    yield made
    made.close()


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def guard(issuer: Issuer) -> Guard:
    return issuer.guard()
