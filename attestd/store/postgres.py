"""How is the store kept in PostgreSQL, or what speaks like it, for a service of several processes?"""

import random
import re
import threading
import time
from collections.abc import Sequence
from functools import lru_cache

import psycopg
from psycopg.errors import (
    DeadlockDetected,
    DuplicateObject,
    DuplicateTable,
    ReadOnlySqlTransaction,
    SerializationFailure,
    UndefinedTable,
    UniqueViolation,
)
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from attestd.store.engine import T, Value, Work
from attestd.store.errors import NoTables, StoreUnavailable
from attestd.store.process import PerProcess

Connection = psycopg.Connection[DictRow]

READS = psycopg.IsolationLevel.REPEATABLE_READ
ATTEMPTS = 40
TWICE = (UniqueViolation, DuplicateTable, DuplicateObject)
MISTAKES = 5
"""What is made twice: if somebody else made it meanwhile, the work runs well next time; if we did, never."""

_SETTINGS = """
    SELECT set_config('statement_timeout', %s, false), set_config('enable_seqscan', 'off', false),
           CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
                THEN set_config('synchronous_commit', 'on', false) END
"""


class PostgresEngine:
    """A pool of connections for each process; every write is serialisable.

    `patience`: seconds to wait for a lock, a connection or an answer.
    """

    def __init__(self, url: str, *, patience: float = 5.0, connections: int = 8) -> None:
        self._patience = patience
        self._here = PerProcess(lambda: _Connections(url, patience, connections), _Connections.close)

    def write(self, work: Work[T]) -> T:
        here = self._here.get()
        last: Exception | None = None
        for attempt in range(ATTEMPTS):
            # Who met a conflict goes on one at a time, or many that want the same row would never be done.
            if attempt and not here.conflicted.acquire(timeout=self._patience):
                break
            try:
                return here.transact(work, read_only=False)
            except (SerializationFailure, DeadlockDetected, *TWICE) as error:
                if attempt == MISTAKES and isinstance(error, TWICE):
                    raise
                last = error
            finally:
                if attempt:
                    here.conflicted.release()
            time.sleep(random.uniform(0, min(0.05, 0.001 * 2**attempt)))
        raise StoreUnavailable("other transactions came first too often") from last

    def read(self, work: Work[T]) -> T:
        return self._here.get().transact(work, read_only=True)

    def close(self) -> None:
        self._here.close()


class _Connections:
    """One process's pool, opened at its first use."""

    def __init__(self, url: str, patience: float, connections: int) -> None:
        self.conflicted = threading.Lock()
        self._pool = ConnectionPool(
            url,
            connection_class=Connection,
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": max(2, int(patience)),
                "tcp_user_timeout": int(patience * 1000),
            },
            configure=lambda connection: _configure(connection, patience),
            min_size=1,
            max_size=connections,
            timeout=patience,
            open=False,
        )

    def transact(self, work: Work[T], *, read_only: bool) -> T:
        self._pool.open()
        try:
            with self._pool.connection() as connection:
                connection.read_only = read_only
                # A snapshot that is only read needs no serialisation, and so never fails for a writer's sake.
                connection.isolation_level = READS if read_only else psycopg.IsolationLevel.SERIALIZABLE
                return work(_Transaction(connection))
        except (SerializationFailure, DeadlockDetected):
            raise
        except UndefinedTable as error:
            raise NoTables(str(error)) from error
        except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction) as error:
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        self._pool.close()


class _Transaction:
    """Portable SQL on a psycopg connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Value] = (), /) -> psycopg.Cursor[DictRow]:
        return self._connection.execute(_dialect(sql), parameters)


def _configure(connection: Connection, patience: float) -> None:
    # Sequential scans of small tables lock the whole table: unrelated transactions would conflict.
    connection.execute(_SETTINGS, (str(int(patience * 1000)),))
    connection.commit()


@lru_cache(maxsize=1024)
def _dialect(sql: str) -> bytes:
    """psycopg's placeholders and PostgreSQL's types; texts sort by their bytes, as in SQLite."""
    sql = re.sub(r"\bBLOB\b", "BYTEA", sql)
    sql = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', sql)
    return sql.replace("%", "%%").replace("?", "%s").encode()
