"""Who keeps this machine's credentials fresh while it runs, and hands them out?

One loop. What blocks (TPM, network, disk) happens in one worker thread, what is due before what callers ask
for; what is served comes from a picture
that is replaced whole. `Upkeep` decides what is done and when, `Demands` does what callers ask for beyond
the picture.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from typing import Any, TypeVar

from attestd.agent.holdings import Holdings, JwtSvid
from attestd.agent.running.demand import Demands
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.running.worker import Worker
from attestd.agent.settings import Settings
from attestd.agent.token import AccessToken, Asked
from attestd.clock import now_ms

SLICE_SECONDS = 30.0
"""The longest sleep: timers stand still while a machine is suspended and know nothing of a clock that was
set, so the wall clock is looked at this often."""
LEAST_SECONDS = 0.05
LEAVE_SECONDS = 1.0
"""For what the worker is at when everything ends."""

T = TypeVar("T")


class Keeper:
    """What the Workload API, the files and `agent status` are served from. One event loop, one thread.

    Every method raises Refusal (the service said no), Unreachable (no answer, and no other source),
    DeviceError (the TPM) or Misconfigured (not what the operator set: an agent or an audience that this
    machine has no workload for, a token that is not from here).
    """

    def __init__(
        self,
        upkeep: Upkeep,
        demands: Demands,
        *,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`clock` in milliseconds, as of both."""
        self._upkeep, self._demands, self._clock = upkeep, demands, clock
        self._worker = Worker("attestd-agent")
        self._shown = upkeep.holdings
        self._turned = asyncio.Event()
        self._nudged = asyncio.Event()
        self._flights: dict[Hashable, asyncio.Task[Any]] = {}

    @property
    def holdings(self) -> Holdings:
        """What is held now. Expired credentials may still be in it: ask `Holdings.current` with the time."""
        return self._upkeep.holdings

    async def changed(self, seen: Holdings) -> Holdings:
        """The picture, as soon as it is another object than `seen`; at once if it is already."""
        while self._upkeep.holdings is seen:
            await self._turned.wait()
        return self._upkeep.holdings

    async def jwt_svid(self, agent: str, audiences: tuple[str, ...]) -> JwtSvid:
        """A JWT-SVID of this agent for exactly these audiences, each among its workload's. From memory until
        half of its life; several callers at once wait for one round."""
        kept = self._demands.kept_jwt_svid(agent, audiences, now=self._clock())
        if kept is not None:
            return kept
        return await self._once((agent, audiences), lambda: self._demands.jwt_svid(agent, audiences))

    async def access_token(self, asked: Asked) -> AccessToken:
        """A token bound to a key in the TPM; `asked.audience` is among the workload's. From memory until half
        of its life: `expires_in` counts from `got_at`."""
        kept = self._demands.kept_token(asked, now=self._clock())
        if kept is not None:
            return kept
        return await self._once(asked, lambda: self._demands.access_token(asked))

    async def proof(self, agent: str, access_token: str, method: str, url: str, nonce: str | None) -> str:
        """The header `DPoP` for one request with a token that `access_token` gave for the same agent."""
        return await self._worker.do(
            lambda: self._demands.proof(agent, access_token, method, url, nonce=nonce)
        )

    def busy_for(self) -> float:
        """Seconds since the worker began with what it is at."""
        return self._worker.busy_for()

    def reconfigure(self, settings: Settings) -> None:
        """Other workloads from now on; what they have is asked for at once."""
        self._upkeep.reconfigure(settings)
        self._demands.reconfigure(settings)
        self._nudged.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Does what is due, when it is due, until `stop` is set."""
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._unless(stopping, self._worker.do(self._upkeep.work, urgent=True))
            self._show()
            while not stop.is_set():
                # A pause in any case: what says that it is due and is not done must not take the processor.
                wished = (self._upkeep.due() - self._clock()) / 1000
                await self._rest(min(max(wished, LEAST_SECONDS), SLICE_SECONDS), stopping)
                # Also when nothing is due: that the clock went back shows at no other time. Before all that
                # callers wait for: however much that is, no identity ends by it.
                await self._unless(stopping, self._worker.do(self._upkeep.work, urgent=True))
                self._show()
        finally:
            stopping.cancel()
            for flight in self._flights.values():
                flight.cancel()
            await asyncio.to_thread(self._worker.close, LEAVE_SECONDS)

    async def _rest(self, seconds: float, stopping: "asyncio.Task[Any]") -> None:
        nudged = asyncio.create_task(self._nudged.wait())
        await asyncio.wait({nudged, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        nudged.cancel()
        self._nudged.clear()

    async def _unless(self, stopping: "asyncio.Task[Any]", work: Coroutine[Any, Any, None]) -> None:
        """Wait for this, but no longer than until everything ends."""
        task = asyncio.create_task(work)
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        else:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _show(self) -> None:
        """Let those see it who wait for another picture."""
        if self._upkeep.holdings is not self._shown:
            self._shown = self._upkeep.holdings
            self._turned.set()
            self._turned = asyncio.Event()

    async def _once(self, key: Hashable, work: Callable[[], T]) -> T:
        """One piece of work for all who want the same; who gives up leaves the others waiting."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._worker.do(work))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._land(key))
        result: T = await asyncio.shield(flight)
        return result

    def _land(self, key: Hashable) -> None:
        self._flights.pop(key, None)
        if self._upkeep.due() <= self._clock():  # It may have shown that this machine started anew.
            self._nudged.set()
