"""The store's tests run on both engines: a file of SQLite's, and a real PostgreSQL."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from attestd.store.store import Store
from tests.attestd.store.signing import AuditKey
from tests.postgres import Cluster, postgres_cluster

__all__ = ["postgres_cluster"]


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """The URL of another empty database with each call."""
    if request.param == "sqlite":
        numbers = count(1)
        return lambda: f"sqlite:{tmp_path / f'attestd-{next(numbers)}.db'}"
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    return cluster.fresh


@pytest.fixture
def database(databases: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return databases()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store with its tables."""
    opened = Store.open(database)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def audit_key() -> AuditKey:
    return AuditKey.make("audit-1")
