"""How does a value become a row? Names of tables and columns are this package's own words, never input."""

from base64 import b64encode
from collections.abc import Mapping

from attestd.store.canonical import canonical_json
from attestd.store.engine import Transaction, Value


def insert(tx: Transaction, table: str, row: Mapping[str, Value]) -> None:
    """Add one row; a clash with a unique column is the caller's mistake and raises the driver's error."""
    tx.execute(_insert_sql(table, row), tuple(row.values()))


def insert_once(tx: Transaction, table: str, row: Mapping[str, Value]) -> bool:
    """Add one row unless one with its key is there.

    True for the one caller, of all that ever tried, who added it.
    """
    done = tx.execute(f"{_insert_sql(table, row)} ON CONFLICT DO NOTHING", tuple(row.values()))
    return done.rowcount == 1


def columns(values: Mapping[str, object], u64: frozenset[str] = frozenset()) -> dict[str, Value]:
    """Values as columns hold them: numbers named in `u64` as 16 hex digits, tuples of bytes as JSON."""
    return {name: _column(name, value, name in u64) for name, value in values.items()}


def _column(name: str, value: object, wide: bool) -> Value:
    match value:
        case tuple():
            return canonical_json([b64encode(each).decode() for each in value])
        case bool():
            return int(value)
        case int() if wide:
            return f"{value:016x}"
        case str() | int() | bytes() | None:
            return value
    raise TypeError(f"{name}: a column cannot hold {type(value).__name__}")


def _insert_sql(table: str, row: Mapping[str, Value]) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})"
