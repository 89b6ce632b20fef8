"""What does a log prove about a boot, as the policy sees it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tpm.eventlog.compare import VerifiedLog
from tpm.eventlog.events import Event
from tpm.eventlog.facts.boot import BootFacts, read_facts
from tpm.eventlog.replay import events_of, extends
from tpm.eventlog.sentences import Said, sentence


@dataclass(frozen=True)
class ProvenBoot:
    """A log that replays to the quoted registers, and the facts that its events in them prove."""

    log: VerifiedLog
    facts: BootFacts

    @classmethod
    def of(cls, log: VerifiedLog) -> ProvenBoot:
        """The facts of this log, from the registers to which it replays and from no others."""
        facts = read_facts(log.log, bank=log.bank, registers=log.registers, userspace=log.userspace)
        return cls(log, facts)

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Firmware's and userspace's, each at its number."""
        return events_of(self.log.log, self.log.userspace)

    def history(self, register: int) -> tuple[Event, ...]:
        """What extended this register, in order; nothing for one to which the log does not replay."""
        if register not in self.log.registers:
            return ()
        return tuple(
            event
            for event in self.events
            if event.register == register and extends(event) and self.log.bank in event.digests
        )

    def digest(self, event: int) -> bytes:
        """What the event extended."""
        return self.events[event].digests[self.log.bank]

    def words(self, event: int) -> str:
        """What the log says that the event is, escaped: a hint for people."""
        return self._say(self.events[event])[0]

    @cached_property
    def _say(self) -> Callable[[Event], Said]:
        return sentence(self.facts)
