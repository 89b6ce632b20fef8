"""How is the store kept in one file, for a service of one process?"""

import os
import sqlite3
import time
from typing import Any

from sqlite_utils import Database

from attestd.store.engine import Row, T, Work
from attestd.store.errors import NoTables, StoreUnavailable
from attestd.store.group import GroupCommit
from attestd.store.process import PerProcess

_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


class SqliteEngine:
    """A file in WAL mode, every commit on the disk before it counts.

    `patience`: seconds to wait for a lock.
    """

    def __init__(self, path: str, *, patience: float = 5.0) -> None:
        self._here = PerProcess(lambda: _Connections(path, patience), _Connections.close)

    def write(self, work: Work[T]) -> T:
        try:
            return self._here.get().group.write(work)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def read(self, work: Work[T]) -> T:
        try:
            return self._here.get().read(work)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def close(self) -> None:
        self._here.close()


class _Connections:
    """One process's connections: the writer, and as many readers as have read at once."""

    def __init__(self, path: str, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._writer: Database | None = None
        self._idle: list[Database] = []
        self.group = GroupCommit(self._write_connection, patience=patience)

    def read(self, work: Work[T]) -> T:
        try:
            database = self._idle.pop()
        except IndexError:
            database = self._connect()
            database.conn.execute("PRAGMA query_only = ON")
            # Damaged text is still read, so that `audit verify` can say which record it is.
            database.conn.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            database.conn.execute("BEGIN")
            return work(database.conn)
        finally:
            if database.conn.in_transaction:
                database.conn.execute("ROLLBACK")
            self._idle.append(database)

    def close(self) -> None:
        """Between two groups, if the current one ends in time."""
        with self.group.paused():
            while self._idle:
                self._idle.pop().close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _write_connection(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = self._connect()
        return self._writer.conn

    def _connect(self) -> Database:
        _make_file(self._path)
        connection = sqlite3.connect(
            self._path,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        database = Database(connection, execute_plugins=False)
        _enable_wal(database, self._patience)
        # Only now: sqlite-utils takes the columns of its own rows by their place.
        connection.row_factory = _as_dict
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return database


def _make_file(path: str) -> None:
    """Make the file if it is not there, so that nobody else can read it; SQLite's files beside it follow
    suit.

    One that is there is not opened: closing it again would drop every lock that this process holds on it
    (POSIX), and the next program to close the database would delete the log that we go on writing to.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


def _enable_wal(database: Database, patience: float) -> None:
    """Waits by itself: SQLite does not, when several open a new file at the same moment."""
    end = time.monotonic() + patience
    while True:
        try:
            return database.enable_wal()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _as_dict(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def _translated(error: sqlite3.Error) -> Exception:
    """StoreUnavailable for what time or an operator can heal, NoTables for an empty file; anything else is a
    mistake and stays itself."""
    if str(error).startswith("no such table"):
        return NoTables(str(error))
    # The low byte is the primary code. Errors of the module itself ("closed database") have none.
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF in _UNAVAILABLE:
        return StoreUnavailable(str(error))
    return error
