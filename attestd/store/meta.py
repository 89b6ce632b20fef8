"""What does the store know of itself: epoch, highest time seen, the policies' generation, the keys?"""

from collections.abc import Mapping

from attestd.store.engine import Transaction

STEP_MS = 1000
"""The highest time is written when it has advanced by this much: one write a second, not one a request."""

_FINGERPRINT = "fingerprint:"


def get(tx: Transaction, key: str) -> str | None:
    row = tx.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row["value"])


def put(tx: Transaction, key: str, value: str) -> None:
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def epoch(tx: Transaction) -> int:
    """Which life of this database it is. What was made under another epoch (nonces, for one) is dead."""
    return int(get(tx, "epoch") or 1)


def raise_epoch(tx: Transaction, now: int) -> int:
    """Begin a new life, as a restore does.

    The clock goes into it: one backup restored twice must not live one life twice.
    """
    raised = max(epoch(tx) + 1, now)
    put(tx, "epoch", str(raised))
    return raised


def highest_time(tx: Transaction) -> int:
    """The highest time that `advance_time` has kept, 0 at first; behind the truth by less than `STEP_MS`."""
    return int(get(tx, "highest_time") or 0)


def advance_time(tx: Transaction, now: int, skew_ms: int) -> bool:
    """Keep the highest time seen.

    False if `now` is more than `skew_ms` below it: the clock went back, so refuse.
    """
    highest = highest_time(tx)
    if now >= highest + STEP_MS:
        put(tx, "highest_time", str(now))
    return now >= highest - skew_ms


def policy_generation(tx: Transaction) -> int:
    """Grows with every change of the active policies: a running service sees that it must read them again."""
    return int(get(tx, "policy_generation") or 0)


def next_policy_generation(tx: Transaction) -> int:
    """Called by `policies` with every change."""
    generation = policy_generation(tx) + 1
    put(tx, "policy_generation", str(generation))
    return generation


def fingerprints(tx: Transaction) -> Mapping[str, str]:
    """The SHA-256 fingerprint of each key file that all replicas must share, by the key's name."""
    rows = tx.execute(
        "SELECT key, value FROM meta WHERE key >= ? AND key < ?", (_FINGERPRINT, "fingerprint;")
    )
    return {row["key"].removeprefix(_FINGERPRINT): row["value"] for row in rows.fetchall()}


def agree_on_key(tx: Transaction, name: str, fingerprint: str) -> bool:
    """The first replica's key is everyone's. False if this replica holds another one: it is not ready."""
    kept = get(tx, _FINGERPRINT + name)
    if kept is None:
        put(tx, _FINGERPRINT + name, fingerprint)
    return kept in (None, fingerprint)


def replace_key(tx: Transaction, name: str, fingerprint: str) -> None:
    """An operator has exchanged this key: from now on this one is everyone's."""
    put(tx, _FINGERPRINT + name, fingerprint)
