"""What happens when the power of a whole fleet goes, and comes back for all at once?"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from attestd.agent.transport import Server
from scripts.fleet.fleet import Fleet, identities, largest, powered
from scripts.fleet.machine import FORMATS
from scripts.fleet.service import Doings, Watched, fleet_service
from scripts.fleet.starts import bare_starts, modules_in
from tests.attestd.web.certificates import Authority
from tests.serving import Serving
from tpm.swtpm_ca import make_test_ca

PROMISED_SECONDS, PROMISED_TRIES = 60.0, 5
"""Until the last machine has its identity, beyond what the starts of the processes take; and the most tries
that one may need."""
_TMPFS = Path("/dev/shm")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """By machine: seconds to the identity at the first boot and after the cut, tries after the cut. `doings`
    and `device_ids` are the service's, after the cut. `bare` is what as many starts take that do nothing but
    import the same, `peak` the most memory that an agent had (KiB)."""

    first: Mapping[str, float]
    back: Mapping[str, float]
    tries: Mapping[str, int]
    doings: Doings
    device_ids: Mapping[str, str]
    bare: float
    peak: int

    @property
    def beyond(self) -> float:
        """Seconds until the last one had its identity, beyond the starts alone."""
        return max(0.0, max(self.back.values()) - self.bare)

    def faults(self) -> Iterator[str]:
        """What is not as promised."""
        if self.beyond > PROMISED_SECONDS:
            yield f"the last identity came {self.beyond:.1f} s beyond the starts"
        for name, tries in self.tries.items():
            if tries > PROMISED_TRIES:
                yield f"machine {name} needed {tries} tries"
        yield from self.repeated()
        if self.doings.errors:
            yield f"the service answered {self.doings.errors} times that it cannot serve"

    def repeated(self) -> Iterator[str]:
        """Who was not issued everything exactly once."""
        for name, device_id in self.device_ids.items():
            issued, rounds = self.doings.issued.get(device_id, 0), self.doings.rounds.get(device_id, 0)
            if (issued, rounds) != (len(FORMATS), 1):
                yield f"machine {name} was issued {issued} credentials in {rounds} rounds"
        strangers = self.doings.issued.keys() - set(self.device_ids.values())
        if strangers:
            yield f"{len(strangers)} devices that are not of the fleet were issued something"


@contextmanager
def stage(
    count: int, *, url: str | None = None, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[Serving, Fleet]]:
    """A running service, and a fleet that it does not know yet, its power on and no agent started. `url` is
    where the agents find it, if something stands in between."""
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        volatile = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", dir=_TMPFS)))
        authority, maker = Authority(disk), make_test_ca("fleet's TPM maker")
        known = dict(settings) | ({} if url is None else {"external_url": f'"{url}"'})
        service = fleet_service(disk / "service", maker, tls=authority.issue("server"), settings=known)
        serving = stack.enter_context(service)
        server = Server(url or serving.url, authority.pem)
        fleet = Fleet(disk, volatile, count, server, maker)
        stack.enter_context(powered(fleet))
        yield serving, fleet


def rehearse(count: int, say: Say, *, database: str | None = None) -> Figures:
    """All of it; `say` is told how far it is. fleet.Late when a machine has no identity in sensible time."""
    patience = 60.0 + count
    say(f"{count} software TPMs start")
    settings = {} if database is None else {"database": f'"{database}"'}
    with stage(count, settings=settings) as (serving, fleet):
        say("their agents start and enrol")
        first = fleet.start_agents(within=patience)
        say(f"all have an identity after {max(first.values()):.1f} s; the power goes")
        fleet.cut_power()
        watched = Watched(serving)
        fleet.power_on()
        say("the power is back; their agents start")
        back = fleet.start_agents(within=patience)
        say(f"all have an identity after {max(back.values()):.1f} s")
        doings, peak = watched.doings(), largest(fleet.machines)
        tries = {machine.name: machine.tries() for machine in fleet.machines}
        device_ids = {machine.name: machine.device_id for machine in fleet.machines}
        modules = imported(fleet)
        say(f"as many interpreters start that import the same {len(modules)} modules and do nothing")
        bare = bare_starts(modules, count)
    return Figures(first, back, tries, doings, device_ids, bare, peak)


def imported(fleet: Fleet) -> tuple[str, ...]:
    """What an agent has imported when it has its identity. The fleet is off afterwards."""
    fleet.cut_power()
    machine = fleet.machines[0]
    machine.power_on()
    trace = machine.directory / "imports"
    machine.start_agent(trace=trace)
    identities([machine], within=60.0)
    machine.cut()
    machine.settle()
    return modules_in(trace.read_text())
