"""How does the agent run, from its start to its end?

One process for each state directory. It is ready when local programs can ask it, which is before it has an
identity; it ends within two seconds, whatever a server does meanwhile.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from attestd.agent.delivery.files import Delivery
from attestd.agent.lock import sole_agent
from attestd.agent.pin import authority
from attestd.agent.running.demand import Demands
from attestd.agent.running.home import Home
from attestd.agent.running.keeper import Keeper
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.settings import Settings
from attestd.agent.state import State
from attestd.agent.transport import Server
from attestd.agent.workload.listening import inherited
from attestd.agent.workload.server import Endpoint, serve
from attestd.clock import now_ms
from attestd.notify import Notifier
from tpm.errors import PolicyError

STUCK_SECONDS = 1800.0
"""A piece of work that takes longer than this is not waiting for a server: systemd may start us anew."""
_FIXED = ("server", "ca", "root_sha256", "tpm", "state", "socket")

log = logging.getLogger("attestd.agent")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process has from outside: how to read its settings (PolicyError or OSError), and its
    environment."""

    load: Callable[[], Settings]
    environ: Mapping[str, str]


async def run(around: Surroundings) -> None:
    """The agent, until SIGTERM or SIGINT. AlreadyRunning, Misconfigured, PolicyError or OSError before
    anything is served; nothing that a later try may mend ends it."""
    settings = around.load()
    with sole_agent(settings.state) as instance:
        State(settings.state).sweep(now=now_ms())
        notifier = Notifier.of(around.environ, pid=os.getpid())
        listening = inherited(around.environ, pid=os.getpid())
        delivery = Delivery(settings.workloads, tell=log.warning)
        delivery.check()
        keeper = _keeper(settings, delivery, notifier, instance)
        async with serve(keeper, settings, listening=listening, now=now_ms) as endpoint:
            stop = asyncio.Event()
            reload = _Reload(around.load, settings, keeper, endpoint, notifier)
            with _signals(stop, reload):
                notifier.ready("waiting for the first attestation")
                log.info("serving; state in %s", settings.state)
                async with pinging(notifier, keeper.busy_for):
                    await keeper.run(stop)
            notifier.stopping()
        delivery.close()


def _keeper(settings: Settings, delivery: Delivery, notifier: Notifier, instance: str) -> Keeper:
    def say(line: str) -> None:
        log.info("%s", line)
        notifier.status(line)

    state = State(settings.state)
    home = Home(settings.tpm, state, lambda url: _server(url, settings, state))
    upkeep = Upkeep(home, settings, say=say, outlet=delivery)
    upkeep.instance = instance
    return Keeper(upkeep, Demands(home, settings, lambda: upkeep.holdings))


def _server(url: str, settings: Settings, state: State) -> Server:
    """The service, trusted as the operator said, or as the machine has joined. Unreachable, Misconfigured."""
    return Server(url, authority(url, state, ca=settings.ca, root_sha256=settings.root_sha256))


class _Reload:
    """SIGHUP: the settings are read again. What cannot be read changes nothing."""

    def __init__(
        self,
        load: Callable[[], Settings],
        settings: Settings,
        keeper: Keeper,
        endpoint: Endpoint,
        notifier: Notifier,
    ) -> None:
        self._load, self._settings, self._notifier = load, settings, notifier
        self._keeper, self._endpoint = keeper, endpoint

    def __call__(self) -> None:
        self._notifier.reloading(monotonic_us=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            self._take(self._load())
        except (PolicyError, OSError) as error:
            log.error("the settings stay as they were: %s", error)
        self._notifier.ready()

    def _take(self, settings: Settings) -> None:
        kept = {name: getattr(self._settings, name) for name in _FIXED}
        changed = [name for name in _FIXED if getattr(settings, name) != kept[name]]
        if changed:
            log.warning("changed %s: that is taken up at the next start", ", ".join(changed))
        self._settings = replace(settings, **kept)
        self._keeper.reconfigure(self._settings)
        self._endpoint.reconfigure(self._settings)
        log.info("settings read again")


@contextmanager
def _signals(stop: asyncio.Event, reload: Callable[[], None]) -> Iterator[None]:
    """While it lasts, signals do this."""
    handlers = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set, signal.SIGHUP: reload}
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def pinging(notifier: Notifier, busy_for: Callable[[], float]) -> AsyncIterator[None]:
    """While it lasts, systemd hears that the loop turns, and that the worker is not stuck."""

    async def ping(interval: float) -> None:
        while True:
            if busy_for() < STUCK_SECONDS:
                notifier.ping()
            await asyncio.sleep(interval)

    if notifier.interval is None:
        yield
        return
    task = asyncio.create_task(ping(notifier.interval))
    try:
        yield
    finally:
        task.cancel()
