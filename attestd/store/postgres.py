"""How is the store kept in PostgreSQL, or what speaks like it, for a service of several processes?"""

import random
import re
import time
from collections.abc import Sequence
from functools import lru_cache

import psycopg
from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction, SerializationFailure, UniqueViolation
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from attestd.store.engine import T, Value, Work
from attestd.store.errors import StoreUnavailable
from attestd.store.process import PerProcess

Connection = psycopg.Connection[DictRow]

ATTEMPTS = 40
MISTAKES = 5
"""Unique violations of one work: that of a concurrent insert goes away, so many are a mistake of ours."""

_SETTINGS = """
    SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),
           set_config('enable_seqscan', 'off', false),
           CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
                THEN set_config('synchronous_commit', 'on', false) END
"""


class PostgresEngine:
    """A pool of connections for each process; every write is serialisable.

    `patience`: seconds to wait for anything.
    """

    def __init__(self, url: str, *, patience: float = 5.0, connections: int = 8) -> None:
        self._pool = PerProcess(lambda: _pool(url, patience, connections), lambda pool: pool.close())

    def write(self, work: Work[T]) -> T:
        violations = 0
        for attempt in range(ATTEMPTS):
            try:
                return self._transact(work, read_only=False)
            except (SerializationFailure, DeadlockDetected):
                pass
            except UniqueViolation:
                violations += 1
                if violations == MISTAKES:
                    raise
            time.sleep(random.uniform(0, min(0.1, 0.001 * 2**attempt)))
        raise StoreUnavailable(f"other transactions came first {ATTEMPTS} times")

    def read(self, work: Work[T]) -> T:
        return self._transact(work, read_only=True)

    def close(self) -> None:
        self._pool.close()

    def _transact(self, work: Work[T], *, read_only: bool) -> T:
        try:
            with self._pool.get().connection() as connection:
                connection.read_only = read_only
                # A read-only snapshot needs no serialisation, and so never fails for the sake of a writer.
                level = (
                    psycopg.IsolationLevel.REPEATABLE_READ
                    if read_only
                    else psycopg.IsolationLevel.SERIALIZABLE
                )
                connection.isolation_level = level
                return work(_Transaction(connection))
        except (SerializationFailure, DeadlockDetected):
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction) as error:
            raise StoreUnavailable(str(error)) from error


class _Transaction:
    """Portable SQL on a psycopg connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> psycopg.Cursor[DictRow]:
        return self._connection.execute(_dialect(sql), parameters)


def _pool(url: str, patience: float, connections: int) -> ConnectionPool[Connection]:
    def configure(connection: Connection) -> None:
        # Sequential scans of small tables lock the whole table: unrelated transactions would conflict.
        timeout = str(int(patience * 1000))
        connection.execute(_SETTINGS, (timeout, timeout))
        connection.commit()

    return ConnectionPool(
        url,
        connection_class=Connection,
        kwargs={
            "row_factory": dict_row,
            "connect_timeout": max(2, int(patience)),
            "tcp_user_timeout": int(patience * 1000),
        },
        configure=configure,
        min_size=1,
        max_size=connections,
        timeout=patience,
        open=True,
    )


@lru_cache(maxsize=1024)
def _dialect(sql: str) -> bytes:
    """psycopg's placeholders and PostgreSQL's types; texts sort by their bytes, as in SQLite."""
    sql = re.sub(r"\bBLOB\b", "BYTEA", sql)
    sql = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', sql)
    return sql.replace("%", "%%").replace("?", "%s").encode()
