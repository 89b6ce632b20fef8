"""How does what is held change where nothing new was given: by another bundle, by time, by other settings?

Each gives another picture; who looks at the old one sees nothing of it.
"""

from collections.abc import Sequence
from dataclasses import replace

from attestd.agent.holdings import NEVER, Bundle, Held, Holdings, first_end
from attestd.agent.running.bundle import bundle_pem
from attestd.agent.settings import Workload


def with_bundle(holdings: Holdings, bundle: Bundle) -> Holdings:
    """The same credentials beside another bundle, also in what is delivered."""
    pem = {"bundle.pem": bundle_pem(bundle)}
    held = {agent: replace(each, files={**each.files, **pem}) for agent, each in holdings.held.items()}
    return replace(holdings, held=held, bundle=bundle)


def unexpired(holdings: Holdings, now: int) -> tuple[dict[str, Held], list[str]]:
    """What may still be used (milliseconds), and of which agents nothing may any more."""
    before = holdings.held
    live = {agent: held.at(now) for agent, held in before.items()}
    gone = [agent for agent in live if first_end(live[agent]) == NEVER != first_end(before[agent])]
    return {agent: held for agent, held in live.items() if agent not in gone}, gone


def for_workloads(holdings: Holdings, workloads: Sequence[Workload], *, why: str, denied: bool) -> Holdings:
    """Who is not named any more has nothing any more; who is new waits, for the reason `why`. What the
    service has decided of an agent, or with `denied` of the machine, holds on."""
    named = {each.agent: each for each in workloads}
    held = {a: replace(h, workload=named[a]) for a, h in holdings.held.items() if a in named}
    withheld = {a: holdings.withheld.get(a, why) for a in named if a not in held}
    refused = frozenset(withheld) if denied else holdings.refused.intersection(withheld)
    return Holdings(held, withheld, holdings.bundle, refused)
