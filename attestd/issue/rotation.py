"""Which key signs now, which are published, and may this one be activated or retired?

A key is published when it is added, signs from its activation until another of its use is activated, and
stays published until it is retired. So relying parties know a key before its first signature, and as long
as something that it signed is alive. The states lie in the store, where all replicas read the same.
"""

from collections.abc import Iterable
from typing import Protocol

from tpm.errors import PolicyError

PUBLISH_SECONDS = 300
"""How long a key is published before its first use: five times the refresh hint of the bundle and the age
of a cached JWKS (SPIFFE Federation, section 5.2 advises three to five)."""
REFRESH_SECONDS = 60
"""How often relying parties are to fetch keys again."""


class KeyState(Protocol):
    """What the store knows of a key; times in milliseconds since the epoch."""

    @property
    def kid(self) -> str: ...
    @property
    def use(self) -> str: ...
    @property
    def alg(self) -> str: ...
    @property
    def state(self) -> str:
        """`published`, `active` or `retired`; of each use at most one key is active."""
        ...

    @property
    def published_at(self) -> int: ...
    @property
    def retired_at(self) -> int | None: ...
    @property
    def last_expiry(self) -> int:
        """Nothing that it signed lives longer than this; 0 if it has signed nothing that ends."""
        ...


def signing(states: Iterable[KeyState], use: str) -> KeyState | None:
    """The key of this use that signs; None where there is none, or where there is more than one to choose
    from."""
    active = [state for state in states if state.use == use and state.state == "active"]
    return active[0] if len(active) == 1 else None


def published(states: Iterable[KeyState], use: str) -> tuple[KeyState, ...]:
    """The keys that relying parties are to know, in the order of their publication."""
    found = (state for state in states if state.use == use and state.state != "retired")
    return tuple(sorted(found, key=lambda state: (state.published_at, state.kid)))


def may_activate(state: KeyState, *, now: int, at_once: bool) -> None:
    """PolicyError `key_retired`, `key_signs`, or `key_too_new` while caches may not know the key, unless
    `at_once`."""
    if state.state == "retired":
        raise PolicyError("key_retired", f"{state.kid} is retired and signs nothing again; add a new key")
    if state.state == "active":
        raise PolicyError("key_signs", f"{state.kid} signs everything for {state.use} already")
    wait = _seconds_until(state.published_at + PUBLISH_SECONDS * 1000, now)
    if wait > 0 and not at_once:
        raise PolicyError(
            "key_too_new",
            f"{state.kid} was published less than {PUBLISH_SECONDS} s ago and caches may not know it: try "
            f"again in {wait} s, or say --now and accept that some relying parties refuse it at first",
        )


def may_retire(state: KeyState, *, now: int) -> None:
    """PolicyError `key_retired`, `key_signs` for the key of its use that signs, `key_in_use` while a
    credential that it signed is alive."""
    if state.state == "retired":
        raise PolicyError("key_retired", f"{state.kid} is retired already")
    if state.state == "active":
        raise PolicyError(
            "key_signs", f"{state.kid} signs everything for {state.use}: activate another first"
        )
    if state.last_expiry > now:
        wait = _seconds_until(state.last_expiry, now)
        raise PolicyError("key_in_use", f"what {state.kid} signed lives for {wait} s more: retire it then")


def sequence(states: Iterable[KeyState], uses: Iterable[str]) -> int:
    """The bundle's sequence number: the moment of the last change of what is published for these uses, in
    milliseconds.

    It rises with every change, since `moment_of_change` lets no two changes share a moment, and does so
    across replicas and restarts without being counted anywhere.
    """
    wanted = frozenset(uses)
    changes = (max(state.published_at, state.retired_at or 0) for state in states if state.use in wanted)
    return max(changes, default=0)


def moment_of_change(states: Iterable[KeyState], *, now: int) -> int:
    """The time under which a change of the published keys is to be recorded: `now`, or later than every
    change before."""
    return max([now, *(max(state.published_at, state.retired_at or 0) + 1 for state in states)])


def _seconds_until(moment: int, now: int) -> int:
    return -((now - moment) // 1000)
