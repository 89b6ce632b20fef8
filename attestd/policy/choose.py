"""Which policy decides about this device?

Only verified facts (the manufacturer in a proven EK certificate) and operators' labels choose; what a device
says of itself is no argument here. The most specific policy decides; none or a tie is an error, never a
choice by order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attestd.policy.document import Policy
from tpm.errors import AttestationError


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a device: operators' labels, and the manufacturer if a certificate proved it."""

    device_id: str
    labels: Mapping[str, str]
    manufacturer: str | None


class NoPolicy(AttestationError):
    """No policy decides; `reason` is "none" or "tie"; `names` are the policies that tie, in order."""

    def __init__(self, reason: str, detail: str, *, names: tuple[str, ...] = ()) -> None:
        super().__init__(reason, detail)
        self.names = names


def covers(policy: Policy, subject: Subject) -> bool:
    """Whether all conditions of [match] hold; values are compared whole."""
    match = policy.match
    if match.manufacturers and subject.manufacturer not in match.manufacturers:
        return False
    return all(subject.labels.get(key) in values for key, values in match.labels.items())


def choose_policy(policies: Sequence[Policy], subject: Subject) -> Policy:
    """The one most specific policy that covers the device; raises NoPolicy."""
    candidates = [policy for policy in policies if covers(policy, subject)]
    if not candidates:
        raise NoPolicy(
            "none", "no active policy covers this device; label it or apply a policy whose [match] covers it"
        )
    most = max(policy.match.specificity for policy in candidates)
    best = [policy for policy in candidates if policy.match.specificity == most]
    if len(best) > 1:
        names = tuple(sorted(policy.name for policy in best))
        raise NoPolicy(
            "tie",
            f"{' and '.join(names)} cover this device alike; add a condition to the [match] of one of them",
            names=names,
        )
    return best[0]


def find_ties(policies: Sequence[Policy], subjects: Iterable[Subject]) -> dict[str, tuple[str, ...]]:
    """The devices about which several of these policies decide alike: identifier → names of policies."""
    ties: dict[str, tuple[str, ...]] = {}
    for subject in subjects:
        try:
            choose_policy(policies, subject)
        except NoPolicy as error:
            if error.names:
                ties[subject.device_id] = error.names
    return ties
