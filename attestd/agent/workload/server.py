"""How are local programs served? On one socket, each by who it is.

listening    the socket, systemd's or our own
caller       who connected, as the kernel says
rules        what it may be
connections  within which bounds
calls        what it asks, followed as things change
tokens       what it asks that is made for it
answers      what it gets
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from attestd.agent.settings import Settings
from attestd.agent.workload import caller as callers
from attestd.agent.workload import listening as sockets
from attestd.agent.workload import tokens
from attestd.agent.workload.bounds import Bounds, Refused
from attestd.agent.workload.calls import House, Prepared, Served
from attestd.agent.workload.connections import Admitted, Listener
from attestd.agent.workload.rules import Rule, read_rules, workloads_of
from attestd.agent.workload.source import Source

CLOSE_SECONDS = 2.0

log = logging.getLogger("attestd.agent.workload")


class Endpoint:
    """The served socket."""

    def __init__(self, source: Source, settings: Settings, now: Callable[[], int]) -> None:
        self._house = House(source, now, Bounds(), Refused(now), Prepared())
        self._rules = _rules(settings)
        self.listener = Listener(self._admit)

    @property
    def refused(self) -> int:
        """How many callers and requests were refused since the start."""
        return self._house.refused.count

    def reconfigure(self, settings: Settings) -> None:
        """Other rules from now on. Connections are ended, so that none is served by a rule that is no more;
        clients come back at once (SPIFFE Workload API, section 4.2)."""
        self._rules = _rules(settings)
        self.listener.disconnect()

    def _admit(self, transport: asyncio.Transport) -> Admitted | None:
        """The methods for who connected; None where it has, or all like it have, too much already."""
        bounds, refused = self._house.bounds, self._house.refused
        connection = transport.get_extra_info("socket")
        _, uid, _ = callers.credentials(connection)
        if not bounds.enter(uid):
            refused.note(f"user {uid} has too many connections, or all together have")
            return None
        caller = callers.identify(connection)
        workloads = workloads_of(self._rules, caller)
        stranger = not workloads
        if stranger and not bounds.enter_stranger():
            bounds.leave(uid, stranger=False)
            refused.note(f"too many connections of callers without a rule; one more is {caller}")
            return None
        served = Served(self._house, caller, workloads)
        return Admitted(tokens.methods(served), lambda: bounds.leave(uid, stranger=stranger))


@asynccontextmanager
async def serve(
    source: Source,
    settings: Settings,
    *,
    listening: socket.socket | None = None,
    now: Callable[[], int],
) -> AsyncIterator[Endpoint]:
    """Serves while it is open, on the listening socket given or on a new one at `settings.socket`.
    Misconfigured where there can be none."""
    kept = sockets.adopt(listening) if listening is not None else sockets.make(settings.socket)
    # What strangers provoke is counted here; the library would write a page of log for each.
    logging.getLogger("grpclib").setLevel(logging.CRITICAL)
    try:
        endpoint = Endpoint(source, settings, now)
        await endpoint.listener.start(sock=kept.sock, backlog=sockets.BACKLOG)
        try:
            yield endpoint
        finally:
            endpoint.listener.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await endpoint.listener.wait_closed()
    finally:
        kept.close()


def _rules(settings: Settings) -> tuple[Rule, ...]:
    rules, unknown = read_rules(settings.workloads)
    for sentence in unknown:
        log.warning("%s; this condition lets nobody in until the agent is started again", sentence)
    return rules
