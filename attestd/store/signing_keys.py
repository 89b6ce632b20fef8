"""Which keys does the service sign with, which does it still publish, and until when must it?

The private halves are files in the keys directory; here is what all replicas must agree on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from attestd.store.engine import Row, Transaction
from attestd.store.rows import insert as insert_row

State = Literal["published", "active", "retired"]

STEP_MS = 60_000
"""The last expiry is kept rounded up to the minute: one write a minute, however often the key signs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One key pair. Times in milliseconds; `fingerprint` is the SHA-256 (hex) of its SubjectPublicKeyInfo."""

    kid: str
    use: str
    alg: str
    state: State
    """published: verifiers are told of it, it does not sign; active: it signs; retired: neither."""
    fingerprint: str
    created_at: int
    published_at: int
    activated_at: int | None = None
    retired_at: int | None = None
    last_expiry: int = 0
    """Nothing that it signed lives longer than this."""


def insert(tx: Transaction, key: SigningKey) -> None:
    row = {name: getattr(key, name) for name in SigningKey.__slots__}
    row["key_use"] = row.pop("use")
    insert_row(tx, "signing_keys", row)


def find(tx: Transaction, kid: str) -> SigningKey | None:
    row = tx.execute("SELECT * FROM signing_keys WHERE kid = ?", (kid,)).fetchone()
    return None if row is None else _key(row)


def list_all(tx: Transaction, *, use: str | None = None) -> list[SigningKey]:
    """Oldest first, retired ones too."""
    where, parameters = ("WHERE key_use = ?", (use,)) if use is not None else ("", ())
    rows = tx.execute(f"SELECT * FROM signing_keys {where} ORDER BY created_at, kid", parameters).fetchall()
    return [_key(row) for row in rows]


def activate(tx: Transaction, kid: str, now: int) -> bool:
    """Let a published key sign from now on; the one that did is published still.

    False if it is not published.

    Whether it has been published for long enough is for the caller to know.
    """
    key = find(tx, kid)
    if key is None or key.state != "published":
        return False
    tx.execute(
        "UPDATE signing_keys SET state = 'published' WHERE key_use = ? AND state = 'active'", (key.use,)
    )
    return _change(tx, kid, {"state": "active", "activated_at": now})


def retire(tx: Transaction, kid: str, now: int) -> bool:
    """Publish a key no more.

    False if it is not there, signs still, or something that it signed lives still.
    """
    key = find(tx, kid)
    if key is None or key.state != "published" or key.last_expiry > now:
        return False
    return _change(tx, kid, {"state": "retired", "retired_at": now})


def note_expiry(tx: Transaction, kid: str, expires_at: int) -> bool:
    """Before the key's signature leaves: keep until when it counts.

    False if the key does not sign any more. One that has just handed over to another is published as long as
    anything that it signed lives, so what was signed with it meanwhile counts.
    """
    rounded = -(-expires_at // STEP_MS) * STEP_MS
    tx.execute(
        "UPDATE signing_keys SET last_expiry = ? WHERE kid = ? AND last_expiry < ?", (rounded, kid, rounded)
    )
    row = tx.execute("SELECT state, activated_at FROM signing_keys WHERE kid = ?", (kid,)).fetchone()
    if row is None or row["state"] == "retired":
        return False
    return row["state"] == "active" or row["activated_at"] is not None


def _change(tx: Transaction, kid: str, columns: Mapping[str, str | int]) -> bool:
    assignments = ", ".join(f"{column} = ?" for column in columns)
    done = tx.execute(f"UPDATE signing_keys SET {assignments} WHERE kid = ?", (*columns.values(), kid))
    return done.rowcount == 1


def _key(row: Row) -> SigningKey:
    return SigningKey(**{("use" if name == "key_use" else name): value for name, value in row.items()})
