"""Which policies are in force, and which have been? Every version is kept with its bytes."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attestd.store import meta
from attestd.store.canonical import canonical_json
from attestd.store.engine import Row, Transaction
from attestd.store.rows import insert


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A checked policy document: name, SHA-256 (hex) that is its identity, its bytes, its files' bytes."""

    name: str
    digest: str
    source: bytes
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of a policy, as it was applied. Versions of a name count from 1 and never go back."""

    name: str
    version: int
    digest: str
    source: bytes
    files: Mapping[str, bytes]
    applied_at: int
    applied_by: str


def apply(tx: Transaction, documents: Sequence[Document], *, by: str, now: int) -> list[PolicyVersion]:
    """Make these the versions in force of their names, all at once; others stay.

    `by` is who did it, for display.

    A document that is in force already keeps its version.
    """
    applied = []
    for document in documents:
        current = _active(tx, document.name)
        if current is None or current.digest != document.digest:
            current = _add(tx, document, by=by, now=now)
        applied.append(current)
    meta.next_policy_generation(tx)
    return applied


def rollback(tx: Transaction, name: str, version: int, *, by: str, now: int) -> PolicyVersion | None:
    """Apply the bytes of an old version again, under a new number: history is one line.

    None if it is not there.
    """
    old = find(tx, name, version)
    if old is None:
        return None
    return apply(
        tx, [Document(name=name, digest=old.digest, source=old.source, files=old.files)], by=by, now=now
    )[0]


def remove(tx: Transaction, name: str) -> bool:
    """Take a policy out of force; its versions stay. False if it was not in force."""
    if tx.execute("DELETE FROM active_policies WHERE name = ?", (name,)).rowcount == 0:
        return False
    meta.next_policy_generation(tx)
    return True


def active(tx: Transaction) -> list[PolicyVersion]:
    """The versions in force, by name. `meta.policy_generation` says whether they are still the same."""
    return _versions(tx, "WHERE a.name IS NOT NULL ORDER BY v.name", ())


def history(tx: Transaction, name: str) -> list[PolicyVersion]:
    """Every version of a name, oldest first, in force or not."""
    return _versions(tx, "WHERE v.name = ? ORDER BY v.version", (name,))


def find(tx: Transaction, name: str, version: int) -> PolicyVersion | None:
    found = _versions(tx, "WHERE v.name = ? AND v.version = ?", (name, version))
    return found[0] if found else None


def is_active(tx: Transaction, name: str, version: int) -> bool:
    """Is the version by which something was judged still in force?"""
    row = tx.execute("SELECT version FROM active_policies WHERE name = ?", (name,)).fetchone()
    return row is not None and row["version"] == version


def _active(tx: Transaction, name: str) -> PolicyVersion | None:
    found = _versions(tx, "WHERE a.name = ?", (name,))
    return found[0] if found else None


def _versions(tx: Transaction, where: str, parameters: tuple[str | int, ...]) -> list[PolicyVersion]:
    rows = tx.execute(
        f"""SELECT v.* FROM policy_versions v
        LEFT JOIN active_policies a ON a.name = v.name AND a.version = v.version {where}""",
        parameters,
    ).fetchall()
    return [_version(row) for row in rows]


def _add(tx: Transaction, document: Document, *, by: str, now: int) -> PolicyVersion:
    newest = tx.execute(
        "SELECT MAX(version) AS newest FROM policy_versions WHERE name = ?", (document.name,)
    ).fetchone()["newest"]
    version = int(newest or 0) + 1
    row: Row = {
        "name": document.name,
        "version": version,
        "digest": document.digest,
        "source": document.source,
        "files": canonical_json({name: b64encode(raw).decode() for name, raw in document.files.items()}),
        "applied_at": now,
        "applied_by": by,
    }
    insert(tx, "policy_versions", row)
    tx.execute(
        """INSERT INTO active_policies (name, version) VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET version = excluded.version""",
        (document.name, version),
    )
    return _version(row)


def _version(row: Row) -> PolicyVersion:
    files = {name: b64decode(text) for name, text in json.loads(row["files"]).items()}
    return PolicyVersion(**{**row, "files": files})
