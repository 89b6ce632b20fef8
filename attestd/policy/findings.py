"""What does the policy object to, and how much of that is a refused device told?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ALWAYS_TOLD = frozenset({"bank_missing"})
"""Told at every `disclose`: a device cannot quote the right bank unless it learns which that is."""


MAX_TOLD = 100
"""Objections of one kind to a register that are told one by one: a log can give cause for thousands."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One objection: a code of the wire, what it is about (a register is "pcr7"), what was expected and what
    was found.

    Digests are bare lower-case hex, as everywhere on the wire. `found` is None where there was nothing.
    `event` is the number of the log's event that is objected to, and `artefact` what the log says that it is;
    the words are a hint, escaped for people.
    """

    code: str
    subject: str
    expected: tuple[str, ...] = ()
    found: str | None = None
    event: int | None = None
    artefact: str | None = None


def to_wire(finding: Finding) -> dict[str, Any]:
    """The whole finding as the wire, the store and `--json` have it."""
    members: dict[str, Any] = {
        "code": finding.code,
        "subject": finding.subject,
        "expected": list(finding.expected),
        "found": finding.found,
    }
    if finding.event is not None:
        members["event"] = finding.event
    if finding.artefact is not None:
        members["artefact"] = finding.artefact
    return members


def from_wire(members: Mapping[str, Any]) -> Finding:
    """A whole finding of ours, read back; not for what others send."""
    return Finding(
        code=members["code"],
        subject=members["subject"],
        expected=tuple(members["expected"]),
        found=members["found"],
        event=members.get("event"),
        artefact=members.get("artefact"),
    )


def disclosed(findings: Iterable[Finding], disclose: str) -> list[dict[str, Any]] | None:
    """What a refused device is told; None: the member is left out.

    "findings" tells all, "codes" keeps code and subject, "none" leaves them out, and `bank_missing` is told
    at every level.
    """
    told: list[dict[str, Any]] = []
    for finding in findings:
        if disclose == "findings" or finding.code in ALWAYS_TOLD:
            told.append(to_wire(finding))
        elif disclose == "codes":
            told.append({"code": finding.code, "subject": finding.subject})
    return told or None
