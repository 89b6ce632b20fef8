"""One service with everybody around it, shared by the foreign implementations of a test process."""

from collections.abc import Iterator

import pytest

from tests.interop.parties import Parties, parties_in


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    with parties_in(tmp_path_factory.mktemp("interop")) as made:
        yield made
