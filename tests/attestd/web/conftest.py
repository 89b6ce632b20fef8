"""One echo service for all tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.attestd.web.echo_service import Running


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("echo")) as running:
        yield running
