"""The store's tests run on both engines: a file of SQLite's, and a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.store.store import Store
from tests.attestd.store.signing import AuditKey
from tests.postgres import postgres_cluster

__all__ = ["postgres_cluster"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'attestd.db'}"
    return str(request.getfixturevalue("postgres_cluster").fresh())


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
