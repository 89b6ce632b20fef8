"""Which access tokens were issued, from which others do they descend, and are they still good?

Only what tells about a token is kept, never the token itself. What a token rests on beside its ancestors (its
device's posture, the credential of its client) is not looked at here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from attestd.store.canonical import canonical_json
from attestd.store.engine import Transaction
from attestd.store.rows import insert as insert_row

_LISTS = ("audience", "parents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One access token. Times in milliseconds."""

    token_id: str
    """The `jti`."""
    device_id: str
    client_id: str
    """The SPIFFE ID of the agent that asked for it."""
    agent: str
    subject: str
    """`sub`: a user, or the client itself."""
    audience: tuple[str, ...]
    scope: str
    """Separated by spaces; empty for none."""
    authorization_details: str | None
    """JSON array of RFC 9396."""
    confirmation: str
    """JSON object, the claim `cnf`; `{}` for a bearer token."""
    actors: str
    """JSON object, the claim `act` with its nested actors; `{}` where nobody acts for another."""
    depth: int
    """How many actors `actors` names."""
    credential_id: str
    """The credential by which its client was known."""
    attestation_id: str
    parents: tuple[str, ...]
    """The tokens of ours that it was made from."""
    reset_count: int
    restart_count: int
    root_sha256: str | None
    policy_name: str
    policy_version: int
    issued_at: int
    expires_at: int
    subject_issuer: str | None = None
    """The OpenID Provider whose user `subject` is; None for an agent of ours."""
    revoked_at: int | None = None
    revoked_reason: str | None = None

    def is_live(self, now: int) -> bool:
        """Neither expired nor ended early; its ancestors are another question (`live_line`)."""
        return self.revoked_at is None and now < self.expires_at


_COLUMNS = ", ".join(f"tokens.{field.name}" for field in fields(Token))


def insert(tx: Transaction, token: Token) -> bool:
    """Record what is about to be handed out, before it is.

    False, and nothing is kept, if one of its ancestors is no longer live: then the token must not leave.
    """
    if not all(live_line(tx, parent, now=token.issued_at) for parent in token.parents):
        return False
    row = {name: getattr(token, name) for name in Token.__slots__}
    insert_row(tx, "tokens", row | {name: canonical_json(row[name]) for name in _LISTS})
    for parent in token.parents:
        insert_row(tx, "token_parents", {"token_id": token.token_id, "parent_id": parent})
    return True


def get(tx: Transaction, token_id: str) -> Token | None:
    row = tx.execute(f"SELECT {_COLUMNS} FROM tokens WHERE token_id = ?", (token_id,)).fetchone()
    return None if row is None else _token(row)


def live_line(tx: Transaction, token_id: str, *, now: int) -> tuple[Token, ...]:
    """The token, then all that it descends from; empty unless every one of them is known and live."""
    rows = tx.execute(
        f"""WITH RECURSIVE line (token_id) AS (
            SELECT token_id FROM tokens WHERE token_id = ?
            UNION
            SELECT p.parent_id FROM token_parents p JOIN line l ON p.token_id = l.token_id)
        SELECT line.token_id AS wanted, {_COLUMNS}
        FROM line LEFT JOIN tokens ON tokens.token_id = line.token_id""",
        (token_id,),
    ).fetchall()
    if any(row["token_id"] is None for row in rows):
        return ()
    line = [_token({name: row[name] for name in row if name != "wanted"}) for row in rows]
    if not all(token.is_live(now) for token in line):
        return ()
    return tuple(sorted(line, key=lambda token: (token.token_id != token_id, -token.issued_at)))


def list_for_device(tx: Transaction, device_id: str, *, live_at: int | None = None) -> list[Token]:
    """A device's tokens in the order of their issue; with `live_at` only those that are good then."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM tokens WHERE device_id = ? ORDER BY issued_at, token_id", (device_id,)
    ).fetchall()
    found = [_token(row) for row in rows]
    return found if live_at is None else [each for each in found if each.is_live(live_at)]


def revoke(tx: Transaction, token_id: str, reason: str, now: int) -> int:
    """End this token and everything that descends from it; returns how many ended now."""
    return tx.execute(
        """UPDATE tokens SET revoked_at = ?, revoked_reason = ?
        WHERE revoked_at IS NULL AND expires_at > ? AND token_id IN (
            WITH RECURSIVE falling (token_id) AS (
                SELECT token_id FROM tokens WHERE token_id = ?
                UNION
                SELECT p.token_id FROM token_parents p JOIN falling f ON p.parent_id = f.token_id)
            SELECT token_id FROM falling)""",
        (now, reason, now, token_id),
    ).rowcount


def purge(tx: Transaction, before: int) -> int:
    """Forget tokens that expired before that time; the audit still has them. Returns how many."""
    return tx.execute("DELETE FROM tokens WHERE expires_at < ?", (before,)).rowcount


def _token(row: Mapping[str, Any]) -> Token:
    return Token(**{**row, **{name: tuple(json.loads(row[name])) for name in _LISTS}})
