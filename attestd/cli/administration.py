"""How does an operator's change reach the store, and with which audit record?

A change and its record are one transaction: neither is kept without the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from attestd.adoption import adopt_keys
from attestd.cli.options import admin_event, keyring_of, operator, store_of
from attestd.clock import now_ms
from attestd.config import Config
from attestd.issue.audit_keys import AuditSigner, audit_signer
from attestd.store import audit
from attestd.store.engine import Transaction
from attestd.store.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Administration:
    """The open store, who changes it, and when (milliseconds)."""

    store: Store
    by: str
    now: int
    _signer: AuditSigner

    def change(self, work: Callable[[Transaction], T]) -> T:
        """One durable transaction; `work` records what it changed."""
        return self.store.write(work)

    def record(
        self,
        tx: Transaction,
        verb: str,
        details: dict[str, Any],
        *,
        device_id: str | None = None,
        policy: str | None = None,
    ) -> None:
        """What was done ("device ban"), in the device's chain if it is about one."""
        event = replace(admin_event(verb, details, device_id=device_id), policy=policy)
        audit.append(tx, self._signer, event, chain=device_id, now=self.now)


@contextmanager
def administration(config: Config) -> Iterator[Administration]:
    """The configured store, ready for changes; what only reads needs no key and uses `store_of`."""
    with store_of(config) as store:
        now = now_ms()
        adopt_keys(store, config, verb="keys adopt", by=operator(), now=now)
        signer = audit_signer(keyring_of(config, store).at(now))
        yield Administration(store, operator(), now, signer)
