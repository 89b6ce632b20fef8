"""How does a program come by credentials from the socket, and by the next ones?

It asks, and is told again whenever something changes. Where the agent is not there it is asked again soon,
and what was given is used until its end; where it says no, what it gave is not used any more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.program.wallet import Wallet
from attestd.agent.workload.client import JwtGiven, WitGiven, WorkloadClient, X509Given
from attestd.clock import now_ms

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds between two tries, doubling; the socket is on this machine."""
SLICE_SECONDS = 30.0
"""The longest sleep: timers know nothing of a clock that was set."""
RENEW_AT = 0.5
"""Of a JWT-SVID's life."""
_KINDS = ("x509", "wit", "jwt")
"""In the order in which they say whose identity it is."""

Given = TypeVar("Given", X509Given, WitGiven, JwtGiven)


class Supply:
    """Of one program. `wallet` is what it has; `turned` is set whenever that or what is missing changes."""

    def __init__(
        self,
        path: Path,
        *,
        agent: str | None = None,
        audiences: Sequence[str] = (),
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`agent`: whose identity is meant, where the program has several. With `audiences` it also gets a
        JWT-SVID for them."""
        self._client = WorkloadClient(path)
        self._agent, self._audiences, self._clock = agent, tuple(audiences), clock
        kinds = _KINDS if audiences else _KINDS[:2]
        self._missing: dict[str, Exception | None] = dict.fromkeys(kinds)
        self._begun = asyncio.Event()
        self.wallet = Wallet()
        self.turned = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Asks for as long as it is open."""
        works = [self._follow("x509", self._client.x509_svids), self._follow("wit", self._client.wit_svids)]
        if self._audiences:
            works.append(self._renew_jwt())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._client.close()

    async def first(self, patience: float, say: Callable[[str], None]) -> None:
        """Returns when there is what can be had. Refusal when the agent says that this program has none, or
        that it has no JWT-SVID for these audiences; Unreachable after so many seconds without any. What it
        waits for is said, each reason once."""
        said: set[str] = set()
        known = False
        try:
            async with asyncio.timeout(patience):
                while not self._complete():
                    self.turned.clear()
                    if not known and self._refusal() is not None:
                        await self._check_known()
                        known = True
                    why = self._waits_for(refusals=known)
                    if why and why not in said:
                        say(f"waiting for an identity: {why}")
                        said.add(why)
                    await self.turned.wait()
        except TimeoutError:
            if (refusal := self._refusal()) is not None:
                raise refusal from None
            why = self._waits_for(refusals=True) or "the agent does not answer"
            raise Unreachable(f"no identity within {patience:g} seconds: {why}") from None

    def _waits_for(self, *, refusals: bool) -> str:
        """Why there is not everything yet; empty if that is not known. A refusal is waited for to change only
        by a program that has a rule."""
        told = [error for error in self._missing.values() if error is not None]
        return next((str(error) for error in told if refusals or not isinstance(error, Refusal)), "")

    def _complete(self) -> bool:
        """Something was given, and of nothing else is it open whether it will be. Refusal for a JWT-SVID that
        is not given beside the rest."""
        given = {kind for kind in self._missing if getattr(self.wallet, kind) is not None}
        refused = {kind: error for kind, error in self._missing.items() if isinstance(error, Refusal)}
        if given and "jwt" in refused:
            raise refused["jwt"]
        return bool(given) and given | refused.keys() == self._missing.keys()

    def _refusal(self) -> Refusal | None:
        """What the agent says where it gives nothing at all."""
        refused = [error for error in self._missing.values() if isinstance(error, Refusal)]
        return refused[0] if len(refused) == len(self._missing) else None

    async def _check_known(self) -> None:
        """Refusal where no rule names this program. Who has one may verify others in any case, and then waits
        for an identity that the service does not give yet."""
        with suppress(Unreachable):
            async with aclosing(self._client.x509_bundles()) as answers:  # type: ignore[type-var]
                await anext(answers)

    async def _follow(self, kind: str, ask: Callable[[], AsyncIterator[Sequence[Any]]]) -> None:
        if kind != "x509":
            await self._begun.wait()
        failures = 0
        while True:
            try:
                async with aclosing(ask()) as answers:  # type: ignore[type-var]
                    async for given in answers:
                        failures = 0
                        self._take(kind, self._mine(kind, given))
            except (Refusal, Unreachable) as error:
                self._miss(kind, error)
            failures += 1
            await asyncio.sleep(_pause(failures))

    async def _renew_jwt(self) -> None:
        await self._begun.wait()
        failures = 0
        while True:
            try:
                given = self._mine("jwt", await self._client.jwt_svids(self._audiences))
            except (Refusal, Unreachable) as error:
                self._miss("jwt", error)
                failures += 1
                await asyncio.sleep(_pause(failures))
                continue
            self._take("jwt", given)
            failures, now = 0, self._clock()
            at = now + max(1000, int((given.expires_at - now) * RENEW_AT))
            while (rest := (at - self._clock()) / 1000) > 0:
                await asyncio.sleep(min(rest, SLICE_SECONDS))

    def _mine(self, kind: str, given: Sequence[Given]) -> Given:
        """The default, or the one identity of the agent that is meant: by the operator's hint, or by its name
        in the SPIFFE ID. All kinds are of one identity, the X.509-SVID's where there is one. Refusal for
        none or several."""
        known = replace(self.wallet, **dict.fromkeys(_KINDS[_KINDS.index(kind) :])).spiffe_id
        meant = [each for each in given if known in ("", each.spiffe_id) and _is(self._agent, each)]
        if len(meant) == 1 or (meant and self._agent is None):
            return meant[0]
        has = ", ".join(each.spiffe_id for each in given)
        which = "several identities are" if meant else "no identity is"
        whose = f"the agent {self._agent}'s" if self._agent is not None else known
        detail = f"{which} {whose}; this program has {has}"
        raise Refusal(403, {"code": "permission_denied", "detail": detail})

    def _take(self, kind: str, given: X509Given | WitGiven | JwtGiven) -> None:
        self._missing[kind] = None
        self._begun.set()
        self.wallet = self.wallet.having(given)
        self.turned.set()

    def _miss(self, kind: str, error: Exception) -> None:
        self._missing[kind] = error
        if isinstance(error, Refusal):
            self._begun.set()
            self.wallet = replace(self.wallet, **{kind: None})
        self.turned.set()


def _is(agent: str | None, given: X509Given | WitGiven | JwtGiven) -> bool:
    return agent is None or agent in (given.hint, *given.spiffe_id.split("/")[3:])


def _pause(failures: int) -> float:
    """Seconds; between half of the window and all of it."""
    window = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
    return window * (0.5 + 0.5 * random.random())
