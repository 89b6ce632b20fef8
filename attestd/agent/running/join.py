"""How does a new machine come to an identity, in one go?

It trusts the service by what the operator was told, enrols, waits until an operator admits it, and attests.
Each step is harmless to do again and leaves whole files: a machine whose power went at any point begins
anew and ends as the same device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attestd.agent.enroll import enroll
from attestd.agent.errors import Misconfigured, Refusal, Unreachable
from attestd.agent.machine import opened
from attestd.agent.running.home import Home
from attestd.agent.running.renewal import Renewed
from attestd.agent.running.rounds import Rounds
from attestd.agent.running.standing import last_outcome
from attestd.agent.settings import Callers, Settings, Workload
from attestd.agent.state import Membership, State
from attestd.agent.trouble import AnotherTpm, Regime, Trouble, trouble_of

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds between two looks at whether the machine is admitted; somebody sits in front of it."""

NOBODY = Callers(frozenset(), frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Joined:
    """The device that the machine is now, the policy that accepted it, the SPIFFE ID of each agent that has
    one, and for each other agent why it has none."""

    membership: Membership
    policy: Mapping[str, Any]
    identities: Mapping[str, str]
    withheld: Mapping[str, str]


def named(agent: str) -> Workload:
    """A workload that only asks for its identity, under a key in the TPM."""
    return Workload(agent, ("x509-svid",), "tpm", (), "", NOBODY, None, (), ())


def check_unbound(state: State, url: str | None) -> None:
    """Misconfigured where the machine belongs to another service already."""
    membership = state.membership()
    if membership is not None and membership.server != url:
        raise Misconfigured(
            f"this machine has joined {membership.server} already; to leave it, stop the agent, remove "
            f"{state.directory} and join again, or name another --state"
        )


def join(
    home: Home,
    settings: Settings,
    *,
    clock: Callable[[], int],
    sleep: Callable[[float], None],
    say: Callable[[str], None],
    wait: bool = True,
) -> Joined:
    """Until the service accepts this machine; `settings.server` is there. `say` is told what is waited for.

    Refusal for a decision, "device_pending" too without `wait`; Unreachable, DeviceError or Misconfigured.
    What is issued on the way is for showing only: the running agent gets its own.
    """
    check_unbound(home.state, settings.server)
    if _is_joined(home.state):
        say("this machine has joined already: it attests again")
    # Whoever joins has decided what an agent alone may not.
    settings = replace(settings, reactivate=True)
    rounds = Rounds(home, clock=clock, say=say)
    said: str | None = None
    for pause in _pauses():
        try:
            renewed = _round(rounds, home, settings, say)
            break
        except (Refusal, Unreachable) as error:
            trouble = trouble_of(error)
            _keep(home, trouble, settings.workloads, now=clock())
            # A service that is away in between is waited for as well; a wrong address shows at once.
            waits = {Regime.PENDING} if said is None else {Regime.PENDING, Regime.OUTAGE}
            if not wait or trouble.regime not in waits:
                raise
            if said != trouble.code:
                said = trouble.code
                say(_waiting(home, trouble))
        sleep(pause)
    home.state.keep_last(last_outcome(None, renewed.policy, settings.workloads, now=clock()))
    return _joined(home, renewed)


def _joined(home: Home, renewed: Renewed) -> Joined:
    membership, _ = home.state.enrolment()
    identities = {
        agent: svid.spiffe_id
        for agent, held in renewed.held.items()
        for svid in (held.x509 or held.wit or held.jwt,)
        if svid is not None
    }
    return Joined(membership, renewed.policy, identities, renewed.withheld)


def _is_joined(state: State) -> bool:
    membership, last = state.membership(), _last(state)
    return membership is not None and membership.state == "active" and last.get("verdict") == "accepted"


def _last(state: State) -> Mapping[str, Any]:
    """How the last attestation ended; a damaged file is nothing lost."""
    try:
        return state.last() or {}
    except Misconfigured:
        return {}


def _round(rounds: Rounds, home: Home, settings: Settings, say: Callable[[str], None]) -> Renewed:
    workloads = [_to_show(each) for each in settings.workloads]
    try:
        return rounds.run(settings, workloads)
    except AnotherTpm:
        say("this machine's TPM is not the one that joined from here: it joins as a device of its own")
        with opened(home.tcti, home.state.directory) as device:
            enroll(device, home.connect(settings.server or ""), home.state)
        return rounds.run(settings, workloads)


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(LONGEST_PAUSE, pause * 1.5)


def _to_show(workload: Workload) -> Workload:
    """Nothing of it is delivered, and nothing is sealed that only once is."""
    return replace(workload, files=None, seals=(), on_renewal=())


def _keep(home: Home, trouble: Trouble, workloads: Sequence[Workload], *, now: int) -> None:
    if trouble.regime in (Regime.DENIED, Regime.PENDING) and home.state.membership() is not None:
        home.state.keep_last(last_outcome(trouble, None, tuple(workloads), now=now))


def _waiting(home: Home, trouble: Trouble) -> str:
    if trouble.regime is Regime.PENDING:
        membership, _ = home.state.enrolment()
        return f"waiting for an operator to admit this machine: attestd device approve {membership.device_id}"
    return f"waiting for the service: {trouble.detail}"
