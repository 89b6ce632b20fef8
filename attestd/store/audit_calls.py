"""Where was a token used? Whoever is called asks about it, and that is how we know.

A resource may ask once a second for as long as a token lives, and asking writes nothing. So calls are counted
here: the first is recorded within a second, those after it once a minute, each record with how many they
were. Each process counts for itself; one that dies loses what it has not yet recorded.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attestd.store import tokens
from attestd.store.audit import AuditEvent, HeadSigner, append, record_time
from attestd.store.engine import Transaction

WINDOW_MS = 60_000
MOST = 100_000
"""Tokens and resources that are counted at once; what comes beyond is not, until a minute has passed."""


@dataclass(slots=True)
class Calls:
    """What one resource asked about one token; times in milliseconds."""

    token_id: str
    resource: str
    since: int
    until: int
    count: int


class CallCounter:
    """Counts calls in memory until `flush` hands them over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[tuple[str, str], Calls] = {}
        self._recorded_at: dict[tuple[str, str], int] = {}

    def note(self, token_id: str, resource: str, *, now: int) -> None:
        """A resource was told that this token is good."""
        with self._lock:
            known = self._counted.get((token_id, resource))
            if known is not None:
                known.until, known.count = now, known.count + 1
            elif len(self._counted) < MOST:
                self._counted[token_id, resource] = Calls(token_id, resource, now, now, 1)

    def flush(self, now: int, record: Callable[[Sequence[Calls]], object], *, closing: bool = False) -> None:
        """Hand over what is due: a first call at once, others when a minute has passed; all when closing.

        What `record` fails to keep is kept here.
        """
        with self._lock:
            recent = {key: at for key, at in self._recorded_at.items() if 0 <= now - at < WINDOW_MS}
            self._recorded_at = recent
            due = [key for key in self._counted if closing or key not in self._recorded_at]
            calls = [self._counted.pop(key) for key in due]
            self._recorded_at |= dict.fromkeys(due, now)
        if not calls:
            return
        try:
            record(calls)
        except BaseException:
            with self._lock:
                for key, call in zip(due, calls, strict=True):
                    self._counted.setdefault(key, call)
                    self._recorded_at.pop(key, None)
            raise


def record_calls(tx: Transaction, signer: HeadSigner, calls: Sequence[Calls], now: int) -> None:
    """One record for each on the chain of the token's device; of tokens that are not kept any more none."""
    for call in calls:
        token = tokens.get(tx, call.token_id)
        if token is None:
            continue
        event = AuditEvent(
            event="request",
            decision="accepted",
            device_id=token.device_id,
            policy=f"{token.policy_name}@{token.policy_version}",
            count=call.count,
            details={
                "called": call.token_id,
                "resource": call.resource,
                "client_id": token.client_id,
                "subject": token.subject,
                "since": record_time(call.since),
                "until": record_time(call.until),
            },
        )
        append(tx, signer, event, chain=token.device_id, now=now)
