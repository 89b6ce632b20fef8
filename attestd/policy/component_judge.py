"""Is this boot made of the components that the policy names, and of nothing else?

In each register that a component names, every event is the separator that ends the firmware's part, or the
one that systemd puts there, each at most once; an action that the policy lists; or a digest of exactly one
variant, in order and at most once. A separator that tells of an error is objected to like anything else.
Events are known by their digests alone: what the log calls them is nobody's word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from attestd.clock import rfc3339
from attestd.policy.components import Component, Variant
from attestd.policy.findings import MAX_TOLD, Finding
from attestd.policy.proven_boot import ProvenBoot
from tpm.eventlog.events import Event
from tpm.eventlog.facts.measured import ERROR_SEPARATOR, OS_SEPARATOR, separator_digests
from tpm.structures.algorithms import hash_by_name


@dataclass(frozen=True, slots=True)
class _Fit:
    """The variant that explains most, and the events that are its own."""

    variant: Variant
    events: frozenset[int]

    @property
    def whole(self) -> bool:
        return len(self.events) == len(self.variant.digests)


def judge_components(
    components: Sequence[Component], actions: Mapping[int, frozenset[bytes]], boot: ProvenBoot, *, now: int
) -> tuple[Finding, ...]:
    """What the policy objects to: components in the policy's order, then events in the log's."""
    findings: list[Finding] = []
    fits: dict[str, _Fit] = {}
    for component in components:
        fit = fits[component.name] = _best_fit(component, boot, now=now)
        findings += _judge_fit(component, fit, boot, now=now)
    explained = frozenset().union(*(fit.events for fit in fits.values()))
    for register in sorted({register for component in components for register in component.pcrs}):
        known = actions.get(register, frozenset())
        others = [
            event.number
            for event in boot.history(register)
            if event.number not in explained and boot.digest(event.number) not in known
        ]
        foreign = list(_without_separators(others, boot))
        findings += _unexpected(foreign, register, _expected(components, fits, register, now=now), boot)
    return tuple(findings)


def _unexpected(
    events: Sequence[int], register: int, expected: tuple[str, ...], boot: ProvenBoot
) -> Iterator[Finding]:
    for event in events[:MAX_TOLD]:
        found, words = boot.digest(event).hex(), boot.words(event)
        yield Finding("event_unexpected", f"pcr{register}", expected, found, event, words)
    if more := len(events[MAX_TOLD:]):
        yield Finding("event_unexpected", f"pcr{register}", (), f"{more} events more")


def _without_separators(events: Sequence[int], boot: ProvenBoot) -> Iterator[int]:
    """A register's events without the first separator of the firmware's and the first of systemd's."""
    hash = hash_by_name(boot.log.bank)
    firmware = separator_digests(hash.name) - {hash.digest(ERROR_SEPARATOR)}
    expected = [firmware, frozenset({hash.digest(OS_SEPARATOR)})]
    for event in events:
        kind = next((one for one in expected if boot.digest(event) in one), None)
        if kind is None:
            yield event
        else:
            expected.remove(kind)


def _best_fit(component: Component, boot: ProvenBoot, *, now: int) -> _Fit:
    """Whole before partial, good before expired, more events before fewer; else as the policy lists them."""
    histories = [boot.history(register) for register in component.pcrs]
    fits = [_Fit(variant, _own(variant, histories, boot.log.bank)) for variant in component.variants]
    return max(fits, key=lambda fit: (fit.whole, not fit.variant.expired(now), len(fit.events)))


def _own(variant: Variant, histories: Sequence[Sequence[Event]], bank: str) -> frozenset[int]:
    """The events that are the variant's digests: in its order within each register, each digest once."""
    free: list[bytes | None] = list(variant.digests)
    listed = frozenset(variant.digests)
    found: set[int] = set()
    for history in histories:
        last = -1
        for event in history:
            digest = event.digests[bank]
            # Most variants are another edition's, of which nothing was measured.
            if digest not in listed:
                continue
            place = next((at for at in range(last + 1, len(free)) if free[at] == digest), None)
            if place is not None:
                free[place], last = None, place
                found.add(event.number)
    return frozenset(found)


def _judge_fit(component: Component, fit: _Fit, boot: ProvenBoot, *, now: int) -> Iterator[Finding]:
    variant = fit.variant
    if not fit.whole:
        good = tuple(one.name for one in component.variants if not one.expired(now))
        yield Finding("component_missing", component.name, good or ("an unexpired variant",))
    elif variant.until is not None and variant.expired(now):
        good = tuple(one.name for one in component.variants if not one.expired(now))
        event = min(fit.events)
        found = f"{variant.name}, which ended {rfc3339(variant.until)}"
        yield Finding("component_expired", component.name, good, found, event, boot.words(event))


def _expected(
    components: Sequence[Component], fits: Mapping[str, _Fit], register: int, *, now: int
) -> tuple[str, ...]:
    """What could have stood here: the good variants' digests of components that are not whole."""
    expected: dict[str, None] = {}
    for component in components:
        if register in component.pcrs and not fits[component.name].whole:
            for variant in component.variants:
                if not variant.expired(now):
                    expected |= dict.fromkeys(digest.hex() for digest in variant.digests)
    return tuple(expected)
