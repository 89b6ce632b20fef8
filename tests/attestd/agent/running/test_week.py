"""A week in the life of an unattended machine: outages, rotations, denials and reboots, and in all of them
what must never happen does not."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from attestd.agent.errors import Unreachable
from attestd.agent.running.schedule import TRIES_AN_HOUR
from attestd.agent.running.upkeep import Upkeep
from attestd.clock import rfc3339
from tests.attestd.agent.running.simulated import BUNDLE, HOUR, MINUTE, SECOND, World, workload, world
from tests.serving import FRESH
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

DAYS, SEED = 7, 2
LIFE = "1h"
POLICY = FRESH.replace('ttl = "10m"', f'ttl = "{LIFE}"').replace('ttl = "5m"', f'ttl = "{LIFE}"')
STRICT = POLICY.replace(f'0 = ["sha256:{"00" * 32}"]', f'0 = ["sha256:{"22" * 32}"]')
ATTEST = "/v1/attestations"
BACK_MS = 6 * MINUTE
"""The longest pause, a denial's with its spread, and a little: after this nobody is without what it is
entitled to."""
WORKLOADS = (workload("builder", "x509-svid", "wit-svid"), workload("telemetry", "x509-svid", key="tpm"))


@dataclass
class Week:
    """What happened, and since when nothing stands in the way of an identity (None: something does)."""

    here: World
    upkeep: Upkeep
    chance: random.Random
    good_since: int | None
    boots: int = 1
    old_keys: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    without: int = 0
    ids: set[str] = field(default_factory=set)

    # --- what happens ---

    def outage(self) -> Iterator[int]:
        """Nobody answers, or not usefully, for half a minute up to three hours."""
        weather = self.here.weather
        for fault in self.chance.sample([weather.away, self._errors, self._slow], k=2):
            fault()
            self.good_since = None
            yield self._long(30 * SECOND, 90 * MINUTE)
        weather.fair()

    def rotation(self) -> Iterator[int]:
        """Another key signs; the old one goes when nothing that it signed is alive."""
        self.old_keys.append(self.here.rotate(self.chance.choice(["x509", "wit", "ear"])))
        yield 10 * MINUTE
        self.old_keys = [kid for kid in self.old_keys if not self.here.retire(kid)]

    def policy(self) -> Iterator[int]:
        """A mistake in the policy, and its correction."""
        self.good_since = None
        self.here.deployment.apply(STRICT, "policy-0.toml")
        yield self._long(MINUTE, 2 * HOUR)
        self.here.deployment.apply(POLICY, "policy-0.toml")

    def measurement(self) -> Iterator[int]:
        """Something is measured that nobody knows; a reboot later it is gone."""
        self.good_since = None
        self.here.tpm.extend(7, {"sha256": self.chance.randbytes(32)})
        yield self._long(MINUTE, 2 * HOUR)
        yield from self.reboot()

    def reboot(self) -> Iterator[int]:
        """The power goes, with warning or without; the agent begins with what is on the disk."""
        self.good_since = None
        self.here.tpm.reset(orderly=self.chance.random() < 0.5)
        self.here.clock.now += self._long(10 * SECOND, 10 * MINUTE)
        self.upkeep = self.here.boot()
        self.boots += 1
        yield SECOND

    def ban(self) -> Iterator[int]:
        """An operator bans it and thinks better of it."""
        self.good_since = None
        device = self.here.device_ids[0]
        self.here.deployment.operate("device", "ban", device)
        yield self._long(MINUTE, HOUR)
        self.here.deployment.operate("device", "unban", device)

    def forgotten(self) -> Iterator[int]:
        """The service comes back from a backup that is older than this device."""
        self.good_since = None
        self.here.forget()
        yield SECOND

    def _errors(self) -> None:
        self.here.weather.fault = Unreachable("cannot serve now: 500")

    def _slow(self) -> None:
        self.here.weather.slow_down(self.chance.randrange(1, 300))

    def _long(self, least: int, most: int) -> int:
        return self.chance.randrange(least, most)

    # --- what must hold, at any time ---

    def check(self) -> None:
        here, now = self.here, self.here.clock.now
        held = self.upkeep.holdings.held
        for each in held.values():
            for svid in (each.x509, each.wit):
                assert svid is None or svid.expires_at > now, "something expired is held"
        if self.good_since is not None and now - self.good_since > BACK_MS:
            assert held.keys() == {"builder", "telemetry"}, (rfc3339(now), here.said[-5:])
        self.without += not held
        self.ids |= set(here.device_ids)
        assert len(self.ids) <= 1

    def live(self, end: int) -> None:
        """What is due, when it is due, and a look at it before and after."""
        clock = self.here.clock
        while clock.now < end:
            clock.now = min(end, max(clock.now, self.upkeep.due()))
            self.upkeep.work()
            self.check()


def test_a_week_of_outages_rotations_denials_and_reboots(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    with world(tmp_path, software_tpm, *WORKLOADS, policies=[POLICY]) as here:
        week = Week(here, here.boot(), random.Random(SEED), here.clock.now)
        kinds: list[Callable[[], Iterator[int]]] = [
            week.outage,
            week.rotation,
            week.policy,
            week.measurement,
            week.reboot,
            week.ban,
            week.forgotten,
        ]
        end = here.clock.now + DAYS * 24 * HOUR
        while here.clock.now < end:
            week.live(here.clock.now + week.chance.randrange(BACK_MS, 6 * HOUR))
            happening = week.chance.choice(kinds)
            week.kinds.append(happening.__name__)
            for duration in happening():
                week.live(here.clock.now + duration)
            week.good_since = here.clock.now if week.good_since is None else week.good_since
        week.live(here.clock.now + HOUR)
        # The week had everything, and a time without an identity, so that its end was seen.
        assert {kind.__name__ for kind in kinds} == set(week.kinds)
        assert week.without > 0
        assert here.weather.count(ATTEST) > 300
        check_afterwards(here)


def check_afterwards(here: World) -> None:
    # 1. It stayed one device, and its TPM is as clean as when it was new.
    assert len(here.device_ids) == 1
    assert leftovers(here.tpm) == {}
    # 2. No hour had more tries than it may have: failures, and a renewal or two.
    times = [time for time, path in here.weather.requests if path == ATTEST]
    assert not any(late - early < HOUR for early, late in zip(times, times[TRIES_AN_HOUR:], strict=False))
    # 3. Nor was the service asked for its bundle more often than every second or so, at any time.
    asked = [time for time, path in here.weather.requests if path == BUNDLE]
    assert sum(late - early < SECOND for early, late in pairwise(asked)) < len(asked) / 50
    # 4. Whatever was written is whole, and its audit too.
    for path in here.state.directory.glob("*.json"):
        json.loads(path.read_text())
    assert here.deployment.audit_faults() == ()
