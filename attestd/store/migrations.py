"""Which tables are there, and how does an older database get them?

A migration is never edited once released; a change is a new one, which first expands (new columns and tables,
with values that the version before can live with) and contracts in a later release.
"""

from attestd.store import schema, schema_logs, schema_oauth, schema_trust
from attestd.store.engine import Engine, Transaction
from attestd.store.errors import NewerDatabase

MIGRATIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (1, schema.FIRST),
    (2, schema_oauth.SECOND),
    (3, schema_trust.THIRD),
    (4, schema_logs.FOURTH),
)


def migrate(engine: Engine, migrations: tuple[tuple[int, tuple[str, ...]], ...] = MIGRATIONS) -> int:
    """Run what this database has not run yet, all in one transaction; returns the number of the newest."""
    newest = migrations[-1][0]
    engine.write(_begin)

    def catch_up(tx: Transaction) -> None:
        # Writing first makes replicas that start at once wait for each other here, before any table is made.
        tx.execute("UPDATE meta SET value = value WHERE key = 'schema'")
        found = int(tx.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()["value"])
        if found > newest:
            raise NewerDatabase(
                f"the database is at version {found}, this attestd knows {newest}: install the newer attestd"
            )
        for number, statements in migrations:
            if number > found:
                for statement in statements:
                    tx.execute(statement)
        tx.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(newest),))

    engine.write(catch_up)
    return newest


def _begin(tx: Transaction) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    tx.execute("INSERT INTO meta (key, value) VALUES ('schema', '0') ON CONFLICT DO NOTHING")
