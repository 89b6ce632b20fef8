"""What has to be done next so that this machine keeps what it is entitled to, and when?

A round when what is held is half through its life, or when a try failed and its pause is over; the bundle on
its own schedule; while denied, a look at whether the machine is another now. Nothing here waits: `due` says
when, `work` does it, in one thread. Old credentials stay until they end, whatever a round says.
"""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from attestd.agent.errors import plain
from attestd.agent.holdings import NEVER, Bundle, Holdings, first_end
from attestd.agent.logs import boot_id
from attestd.agent.running import picture, schedule
from attestd.agent.running.bundle import fetch_bundle, orphaned
from attestd.agent.running.home import Home
from attestd.agent.running.outlet import Nowhere, Outlet
from attestd.agent.running.posture import Watch
from attestd.agent.running.renewal import Renewed
from attestd.agent.running.rounds import Rounds
from attestd.agent.running.schedule import Tries
from attestd.agent.running.standing import Standing, last_outcome, say_expiry
from attestd.agent.running.telling import Telling, membership_of
from attestd.agent.settings import Settings
from attestd.agent.trouble import FINAL, Regime, Trouble, sentence, trouble_of
from attestd.clock import now_ms, rfc3339

BACKWARDS_MS = 2000
"""A clock that is set back by more than this makes every plan void."""
_WAITING = "the first attestation has not ended yet"


class Upkeep:
    """One machine's plan and holdings. `holdings` is replaced whole and may be read from any thread.

    The first try is made at once, also where a whole fleet begins together: how long a boot takes spreads it
    as well as any pause would, and a service that has too much to do says when to come back.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        *,
        clock: Callable[[], int] = now_ms,
        draw: schedule.Draw = random.random,
        say: Callable[[str], None] = lambda _: None,
        outlet: Outlet | None = None,
    ) -> None:
        """`clock` in milliseconds, `draw` from 0 to 1, `say` takes one line for the operator's journal."""
        self.instance = ""
        """Of this start, as it was written to the lock; whoever starts the agent sets it."""
        self._outlet: Outlet = outlet or Nowhere()
        self._home, self._clock, self._draw, self._say = home, clock, draw, say
        self._settings = self._wished = settings
        self._tries = Tries()
        self._trouble: Trouble | None = None
        self._policy: Mapping[str, Any] | None = None
        self._since = self._seen = clock()
        self._round_at = self._seen
        self._bundle_at = NEVER
        self._watch = Watch(home.tcti, home.state.directory, home.files)
        self._bundle_failures = 0
        self._rounds = Rounds(home, clock=clock, say=say, on_bundle=self._take_bundle)
        self._telling = Telling(home.state, say=say)
        self._mishaps, self._resting_until = 0, 0
        self._era = home.era.number
        self._reloaded, self._reload_at = False, 0
        self._withheld_until: dict[str, int] = {}
        self._unsealed: Mapping[str, str] = {}
        self._off: Mapping[str, str] = {}
        self._ended_at: int | None = None
        self._notes: Mapping[str, str] = {}
        self.holdings = Holdings({}, {each.agent: _WAITING for each in settings.workloads}, None)

    def reconfigure(self, settings: Settings) -> None:
        """Other workloads from the next `work` on, which is due at once. From any thread."""
        self._wished = settings

    def due(self) -> int:
        """When there is something to do next."""
        if self._wished is not self._settings:
            return self._seen
        if self._era != self._home.era.number:
            return self._resting_until
        others = [at for at in (self._watch.due, self._outlet.due()) if at is not None]
        due = min(self._round_at, self._refresh_due(), self._expiry(), *others)
        return max(due, self._resting_until)

    def work(self) -> None:
        """Do what is due, at most one thing that takes the network. Raises nothing: it would end everything
        that this process holds."""
        try:
            self._work(self._clock())
        except Exception as error:  # Whatever it was, what is held stays, and the next try is planned.
            now, self._mishaps = self._clock(), self._mishaps + 1
            self._resting_until = now + schedule.pause(Regime.FAULT, self._mishaps, self._draw)
            self._say(f"this should not happen, and is tried again: {type(error).__name__}: {plain(error)}")
        else:
            self._mishaps = self._resting_until = 0

    def _work(self, now: int) -> None:
        if now < self._seen - BACKWARDS_MS:
            self._say(f"the clock went back by {(self._seen - now) // 1000} seconds; beginning anew")
            self._tries = replace(self._tries, times=())
            self._withheld_until.clear()
            self._round_at = now
        self._seen = now
        if self._wished is not self._settings:
            self._take_settings(self._wished, now)
        self._drop_expired(now)
        if self._era != self._home.era.number:
            self._era = self._home.era.number
            self._say("the machine has started anew, which ends what it was given; trying at once")
            self._round_at = self._tries.not_before(now)
        if self._watch.due is not None and now >= self._watch.due and self._watch.changed(now):
            self._say("a register or a log changed; trying at once")
            self._withheld_until.clear()
            self._round_at = self._tries.not_before(now)
        outlet_due = self._outlet.due()
        if now >= self._round_at:
            self._round()
        elif now >= self._refresh_due():
            self._refresh()
        elif not self._outlet.troubles and (outlet_due is None or now < outlet_due):
            return
        self._tell()

    def standing(self) -> Standing:
        """What is told of all this."""
        membership = membership_of(self._home.state)
        return Standing(
            pid=os.getpid(),
            instance=self.instance,
            boot_id=boot_id(),
            time=self._clock(),
            server=membership.server if membership else self._settings.server,
            device_id=membership.device_id if membership else None,
            trouble=self._trouble,
            policy=self._policy,
            since=self._since,
            tries=self._tries.in_a_row if self._trouble else 0,
            holdings=self.holdings,
            notes=self._notes,
            next_at=self._round_at,
        )

    def _take_settings(self, settings: Settings, now: int) -> None:
        """Who is not named any more has nothing any more."""
        self._settings = settings
        self._outlet.reconfigure(settings.workloads)
        self._withheld_until.clear()
        self._reloaded, self._round_at = True, min(max(now, self._reload_at), now + schedule.RELOAD_PAUSE)
        self.holdings = picture.for_workloads(
            self.holdings, settings.workloads, self._trouble, waiting=_WAITING
        )

    # --- a round ----------------------------------------------------------------------------------

    def _round(self) -> None:
        now, withheld = self._clock(), self._withheld_until
        wanted = [each for each in self._settings.workloads if withheld.get(each.agent, now) <= now]
        try:
            renewed = self._rounds.run(self._settings, wanted)
        except Exception as error:  # Whatever it was, the next try is planned.
            self._fail(trouble_of(error))
        else:
            self._succeed(renewed)

    def _succeed(self, renewed: Renewed) -> None:
        now = self._clock()
        if self._trouble is not None and self._trouble.regime is Regime.DENIED:
            self._home.era.ended()
        self._era = self._home.era.number
        if self._trouble is not None or self._policy is None:
            self._say(f"accepted by {_policy_name(renewed.policy)}")
            self._since = now
        changed = self._policy not in (None, renewed.policy)
        skipped = {agent for agent, until in self._withheld_until.items() if until > now}
        for agent, why in renewed.withheld.items():
            self._withheld_until[agent] = schedule.withheld_until(now, self._draw)
            self._say(f"nothing for {agent}: {why}")
        withheld = {agent: self.holdings.withheld.get(agent, _WAITING) for agent in skipped}
        for agent in renewed.held:
            self._withheld_until.pop(agent, None)
        self._trouble, self._policy, self._unsealed = None, renewed.policy, renewed.unsealed
        self._tries = replace(self._tries, regime=Regime.GOOD, in_a_row=0)
        self._reloaded, self._reload_at = False, 0
        self._watch.end()
        self._round_at = schedule.renewal_at(now, renewed.until, self._draw)
        if self._withheld_until:
            self._round_at = min(self._round_at, *self._withheld_until.values())
        if changed and skipped:  # Another version may give what the last one did not.
            self._withheld_until.clear()
            self._round_at = now
        self._outlet.forget(renewed.withheld)
        withheld |= renewed.withheld
        self.holdings = Holdings(renewed.held, withheld, renewed.bundle, frozenset(withheld))
        self._ended_at = now
        if renewed.ahead and not self._off:
            self._say(f"this machine's clock is {renewed.ahead} seconds ahead of the service's; set it")
        self._off = (
            {"clock": f"{renewed.ahead} seconds ahead of the service's; set it"} if renewed.ahead else {}
        )
        self._say(f"holding credentials for {len(renewed.held)}; next round {rfc3339(self._round_at)}")

    def _fail(self, trouble: Trouble) -> None:
        now = self._clock()
        if self._trouble is None or self._trouble.regime != trouble.regime:
            self._since = now
        told = self._trouble.findings if self._trouble is not None else ()
        self._trouble = trouble
        self._tries = self._tries.failed(trouble.regime, now, counts=not self._reloaded)
        if self._reloaded:
            self._reloaded, self._reload_at = False, now + schedule.RELOAD_PAUSE
        self._round_at = self._tries.next_at(now, self._draw, retry_after=trouble.retry_after)
        self._watch.end()
        if trouble.regime is Regime.DENIED:
            self._watch.begin(now)
        if trouble.code in FINAL:
            self._outlet.forget([each.agent for each in self._settings.workloads])
            if self.holdings.held:
                self._say("what this machine had is given to nobody any more")
            self.holdings = replace(self.holdings, held={})
        if trouble.regime in (Regime.DENIED, Regime.PENDING):
            self._ended_at = now
        self.holdings = picture.failed(self.holdings, self._settings.workloads, trouble)
        if trouble.findings != told:
            for finding in trouble.findings:
                self._say(sentence(finding))
        if trouble.regime is Regime.UNENROLLED and self._tries.in_a_row > 1:
            return
        self._say(
            f"{trouble}; next try {rfc3339(self._round_at)}{say_expiry(self.holdings.held.values(), now)}"
        )

    # --- beside the rounds ------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Another bundle, without a round; with one at once if we hold what it does not vouch for."""
        now = self._clock()
        try:
            machine = self._home.machine(self._settings.server)
            bundle, hint = fetch_bundle(machine.server, machine.trust_domain)
        except Exception as error:
            trouble = trouble_of(error)
            self._bundle_failures += 1
            self._bundle_at = now + schedule.pause(
                Regime.OUTAGE, self._bundle_failures, self._draw, retry_after=trouble.retry_after
            )
            self._say(f"the bundle was not read: {trouble.detail}")
            return
        before = self.holdings
        self._take_bundle(bundle, hint)
        if self.holdings is before:
            return
        if orphaned(self.holdings.held.values(), bundle, now=now):
            self._say("a signing key was retired; renewing at once")
            self._round_at = self._tries.not_before(now)

    def _refresh_due(self) -> int:
        """Not while each round fails before, or at, the bundle that it begins with."""
        waits = self._trouble is not None and self._trouble.regime not in (Regime.DENIED, Regime.PENDING)
        return NEVER if waits else self._bundle_at

    def _take_bundle(self, bundle: Bundle, hint: int | None) -> None:
        """Held at once, whatever else the round that read it brings: others are verified with it."""
        self._bundle_failures = 0
        self._bundle_at = schedule.refresh_at(self._clock(), hint, self._draw)
        if bundle != self.holdings.bundle:
            self.holdings = picture.with_bundle(self.holdings, bundle)

    def _expiry(self) -> int:
        return min((first_end(held) for held in self.holdings.held.values()), default=NEVER)

    def _drop_expired(self, now: int) -> None:
        """Whoever waits for another picture sees that something ended."""
        if now < self._expiry():
            return
        self.holdings, gone = picture.expired(self.holdings, now, self._trouble)
        for agent in gone:
            self._say(f"what {agent} had has expired")
        self._tell()

    def _tell(self) -> None:
        """Files first: whoever waits for this machine's identity finds them."""
        self._outlet.show(self.holdings, now=self._clock())
        self._notes = {**self._unsealed, **self._outlet.troubles, **self._off}
        if self._ended_at is not None:
            ended, self._ended_at = self._ended_at, None
            workloads = self._settings.workloads
            self._telling.ended(last_outcome(self._trouble, self._policy, workloads, now=ended))
        self._telling.stands(self.standing())


def _policy_name(policy: Mapping[str, Any]) -> str:
    return f"{policy.get('name')}@{policy.get('version')}"
