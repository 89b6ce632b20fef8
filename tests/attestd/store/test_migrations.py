"""Do the tables come once, in order, on both engines?"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from threading import Barrier

import pytest

from attestd.store import credentials, meta, rows
from attestd.store.errors import NewerDatabase
from attestd.store.migrations import MIGRATIONS, migrate
from attestd.store.postgres import PostgresEngine
from attestd.store.sqlite import SqliteEngine
from attestd.store.store import Store
from tests.attestd.store.records import NOW, issued

REPLICAS = 6
NEWEST = MIGRATIONS[-1][0]
ADDED = {"key_jwk", "resident"}
"""What the second version added to credentials."""

TABLES = {
    "devices",
    "device_labels",
    "spent_nonces",
    "spent_enrollments",
    "attestations",
    "credentials",
    "tokens",
    "token_parents",
    "sealed_keys",
    "policy_versions",
    "active_policies",
    "signing_keys",
    "audit_records",
    "audit_heads",
    "quarantined_makers",
    "supplied_certificates",
    "device_logs",
    "ima_marks",
}


@pytest.fixture
def engine(database: str) -> Iterator[SqliteEngine | PostgresEngine]:
    opened = (
        SqliteEngine(database.removeprefix("sqlite:"))
        if database.startswith("sqlite:")
        else PostgresEngine(database)
    )
    yield opened
    opened.close()


def test_migrations_are_numbered_upwards_from_one() -> None:
    numbers = [number for number, _ in MIGRATIONS]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))


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
    found = engine.read(lambda tx: tx.execute("SELECT * FROM colours").fetchall())
    assert found == [{"name": "blue", "shade": None}]


def test_a_database_of_the_first_version_keeps_its_credentials_and_makes_them_no_clients(
    engine: SqliteEngine | PostgresEngine,
) -> None:
    """Its rows say nothing of their keys: they are no clients until their device attests again."""
    old = {name: value for name, value in asdict(issued("serial-1")).items() if name not in ADDED}
    migrate(engine, MIGRATIONS[:1])
    engine.write(lambda tx: rows.insert(tx, "credentials", old))
    assert migrate(engine) == NEWEST
    found = engine.read(lambda tx: credentials.get(tx, "serial-1"))
    assert found == issued("serial-1")
    assert (found.key_jwk, found.resident, found.is_live(NOW)) == (None, False, True)
    spiffe_id = str(old["spiffe_id"])
    assert engine.read(lambda tx: credentials.find_bound(tx, spiffe_id, "thumb", NOW)) is None
    renewed = issued("serial-2", key_jwk='{"kty":"EC"}', resident=True)
    engine.write(lambda tx: credentials.insert_all(tx, [renewed]))
    assert engine.read(lambda tx: credentials.find_bound(tx, spiffe_id, "thumb", NOW)) == renewed


def test_a_replica_of_the_first_version_writes_on_while_the_second_runs(
    engine: SqliteEngine | PostgresEngine,
) -> None:
    old = {name: value for name, value in asdict(issued("serial-1")).items() if name not in ADDED}
    migrate(engine)
    engine.write(lambda tx: rows.insert(tx, "credentials", old))
    assert engine.read(lambda tx: credentials.get(tx, "serial-1")) == issued("serial-1")


def test_a_migration_that_fails_leaves_the_database_as_it_was(engine) -> None:
    first = (1, ("CREATE TABLE colours (name TEXT PRIMARY KEY)",))
    broken = (2, ("CREATE TABLE shades (name TEXT)", "CREATE TABEL typo (name TEXT)"))
    migrate(engine, (first,))
    with pytest.raises(Exception, match=r"(?i)syntax error"):
        migrate(engine, (first, broken))
    fixed = (2, ("CREATE TABLE shades (name TEXT)",))
    assert migrate(engine, (first, fixed)) == 2
