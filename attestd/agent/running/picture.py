"""How does what is held change where nothing new was given: by another bundle, by time, by other settings?

Each gives another picture; who looks at the old one sees nothing of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from attestd.agent.holdings import NEVER, Bundle, Holdings, first_end
from attestd.agent.running.bundle import bundle_pem
from attestd.agent.settings import Workload
from attestd.agent.trouble import DOUBLING, Regime, Trouble


def with_bundle(holdings: Holdings, bundle: Bundle) -> Holdings:
    """The same credentials beside another bundle, also in what is delivered."""
    pem = {"bundle.pem": bundle_pem(bundle)}
    held = {agent: replace(each, files={**each.files, **pem}) for agent, each in holdings.held.items()}
    return replace(holdings, held=held, bundle=bundle)


def expired(holdings: Holdings, now: int, trouble: Trouble | None) -> tuple[Holdings, list[str]]:
    """Without what has ended (milliseconds), and the agents that have nothing any more by that."""
    before = holdings.held
    live = {agent: held.at(now) for agent, held in before.items()}
    gone = [agent for agent in live if first_end(live[agent]) == NEVER != first_end(before[agent])]
    held = {agent: each for agent, each in live.items() if agent not in gone}
    why = str(trouble) if trouble else "what there was has expired"
    withheld = {**holdings.withheld, **dict.fromkeys(gone, why)}
    return replace(
        holdings, held=held, withheld=withheld, refused=_refused(holdings, withheld, trouble)
    ), gone


def failed(holdings: Holdings, workloads: Sequence[Workload], trouble: Trouble) -> Holdings:
    """After a try that failed; the same object where nothing is other by that."""
    without = {each.agent: str(trouble) for each in workloads if each.agent not in holdings.held}
    refused = _refused(holdings, without, trouble)
    if (without, refused) == (holdings.withheld, holdings.refused):
        return holdings
    return replace(holdings, withheld=without, refused=refused)


def for_workloads(
    holdings: Holdings, workloads: Sequence[Workload], trouble: Trouble | None, *, waiting: str
) -> Holdings:
    """Who is not named any more has nothing any more; who is new has nothing yet. What the service has
    decided holds on."""
    named = {each.agent: each for each in workloads}
    held = {a: replace(h, workload=named[a]) for a, h in holdings.held.items() if a in named}
    why = str(trouble) if trouble else waiting
    withheld = {a: holdings.withheld.get(a, why) for a in named if a not in held}
    return Holdings(held, withheld, holdings.bundle, _refused(holdings, withheld, trouble))


def _refused(holdings: Holdings, without: Iterable[str], trouble: Trouble | None) -> frozenset[str]:
    """Whom of them the service decided about: until it is asked again, by its last word."""
    regime = Regime.GOOD if trouble is None else trouble.regime
    if regime is Regime.DENIED:
        return frozenset(without)
    return holdings.refused.intersection(without) if regime in (Regime.GOOD, *DOUBLING) else frozenset()
