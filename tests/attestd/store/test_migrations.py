"""Do the tables come once, in order, on both engines?"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from attestd.store import meta
from attestd.store.errors import NewerDatabase
from attestd.store.migrations import MIGRATIONS, migrate
from attestd.store.postgres import PostgresEngine
from attestd.store.sqlite import SqliteEngine
from attestd.store.store import Store

REPLICAS = 6
NEWEST = MIGRATIONS[-1][0]
TABLES = {
    "devices",
    "device_labels",
    "spent_nonces",
    "spent_enrollments",
    "attestations",
    "credentials",
    "sealed_keys",
    "policy_versions",
    "active_policies",
    "signing_keys",
    "audit_records",
    "audit_heads",
}


@pytest.fixture
def engine(database: str):
    opened = (
        SqliteEngine(database.removeprefix("sqlite:"))
        if database.startswith("sqlite:")
        else PostgresEngine(database)
    )
    yield opened
    opened.close()


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [number for number, _ in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_an_empty_database_gets_every_table(database: str) -> None:
    store = Store.open(database)
    assert store.migrate() == NEWEST
    for table in TABLES:
        assert store.read(lambda tx, table=table: tx.execute(f"SELECT * FROM {table}").fetchall()) == []
    store.close()


def test_migrating_again_changes_nothing(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    assert store.migrate() == NEWEST
    assert store.read(lambda tx: meta.get(tx, "colour")) == "blue"


def test_replicas_that_start_at_once_migrate_once(databases: Callable[[], str]) -> None:
    for _ in range(8):
        _start_together(databases())


def _start_together(database: str) -> None:
    stores = [Store.open(database) for _ in range(REPLICAS)]
    together = Barrier(REPLICAS)

    def start(store: Store) -> int:
        together.wait()
        return store.migrate()

    with ThreadPoolExecutor(REPLICAS) as pool:
        assert list(pool.map(start, stores)) == [NEWEST] * REPLICAS
    for store in stores:
        store.close()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "schema", str(NEWEST + 1)))
    with pytest.raises(NewerDatabase, match=f"version {NEWEST + 1}, this attestd knows {NEWEST}"):
        store.migrate()
    assert store.read(lambda tx: meta.get(tx, "schema")) == str(NEWEST + 1)


def test_only_what_has_not_run_yet_is_run_and_rows_stay(engine) -> None:
    first = (1, ("CREATE TABLE colours (name TEXT PRIMARY KEY)", "INSERT INTO colours VALUES ('blue')"))
    second = (2, ("ALTER TABLE colours ADD COLUMN shade TEXT",))
    assert migrate(engine, (first,)) == 1
    assert migrate(engine, (first, second)) == 2
    rows = engine.read(lambda tx: tx.execute("SELECT * FROM colours").fetchall())
    assert rows == [{"name": "blue", "shade": None}]


def test_a_migration_that_fails_leaves_the_database_as_it_was(engine) -> None:
    first = (1, ("CREATE TABLE colours (name TEXT PRIMARY KEY)",))
    broken = (2, ("CREATE TABLE shades (name TEXT)", "CREATE TABEL typo (name TEXT)"))
    migrate(engine, (first,))
    with pytest.raises(Exception, match=r"(?i)syntax error"):
        migrate(engine, (first, broken))
    fixed = (2, ("CREATE TABLE shades (name TEXT)",))
    assert migrate(engine, (first, fixed)) == 2
