"""Why did it not work, and so: who must act before it can?

Sorts what went wrong by what helps: waiting (the service does not answer), somebody's decision (it said no),
or this machine (its TPM, its disk, its settings).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attestd.agent.errors import Misconfigured, NotEnrolled, Refusal, Unreachable, plain
from tpm.errors import AttestationError, DeviceError


class Regime(StrEnum):
    """How things stand between this machine and its service, as far as the next try depends on it."""

    GOOD = "accepted"
    OUTAGE = "unreachable"
    FAULT = "fault"
    """Of this machine: its TPM, its disk, its configuration."""
    DENIED = "denied"
    PENDING = "pending"
    UNENROLLED = "not enrolled"


DOUBLING = frozenset({Regime.OUTAGE, Regime.FAULT})

PASSING = frozenset(
    {"slow_down", "unavailable", "conflict", "nonce_spent", "nonce_expired", "log_needed", "not_found"}
)
"""Refusals that are nobody's decision about this machine: asking again is all that helps."""
LOST = frozenset({"ak_changed", "recipe_damaged"})
"""The TPM's words for an attestation key that is gone: enrolling anew is what helps."""
FORGOTTEN = frozenset({"attestation_failed"})
"""The service's word, among others, for an attestation key that it does not know: the same may help."""
FINAL = frozenset({"device_banned"})
"""An operator's decision about this very device: what it had is not handed out any more. Another denial may
be a policy that is corrected in a minute, and must not cut off a fleet before its credentials end."""
_FINDINGS_SHOWN, _FINDING_LIMIT = 50, 4096
_SAID = ("code", "detail", "error", "error_description")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One failed try. `code` is the wire's or the TPM's word; `findings` are the service's, for a person to
    read; `retry_after` is seconds."""

    regime: Regime
    code: str
    detail: str
    findings: tuple[Mapping[str, Any], ...] = ()
    retry_after: int | None = None

    def __str__(self) -> str:
        return f"{self.regime} ({self.code}): {self.detail}"


def sentence(finding: Mapping[str, Any]) -> str:
    """One finding as the service told it: what, in which register, by which event, expected and found."""
    said = [f"{plain(finding.get('code'))} {plain(finding.get('subject') or '')}".rstrip()]
    if finding.get("event") is not None:
        artefact = finding.get("artefact")
        said.append(f"event {plain(finding['event'])}" + (f" ({plain(artefact)})" if artefact else ""))
    for member in ("expected", "found"):
        if finding.get(member) is not None:
            said.append(f"{member} {_listed(finding[member])}")
    return ", ".join(said)


def _listed(value: object) -> str:
    return " or ".join(plain(each) for each in value) if isinstance(value, list) else plain(value)




class AnotherTpm(Exception):
    """This state directory belongs to a device whose TPM this is not."""


def trouble_of(error: Exception) -> Trouble:
    """What to make of what a try raised."""
    match error:
        case Refusal():
            return _refused(error)
        case Unreachable():
            retry_after = error.retry_after
            return Trouble(Regime.OUTAGE, "no_answer", str(error), retry_after=retry_after)
        case NotEnrolled():
            return Trouble(Regime.UNENROLLED, "not_enrolled", str(error))
        case AnotherTpm():
            return Trouble(Regime.DENIED, "another_tpm", str(error))
        case Misconfigured():
            return Trouble(Regime.FAULT, "misconfigured", str(error))
        case DeviceError():
            return Trouble(Regime.FAULT, error.reason, error.detail)
        case AttestationError():
            return Trouble(Regime.FAULT, error.reason, error.detail)
        case OSError():
            return Trouble(
                Regime.FAULT, "system", f"{error.filename or ''} {error.strerror or error}".strip()
            )
    return Trouble(Regime.FAULT, "internal", f"{type(error).__name__}: {error}")


def _refused(refusal: Refusal) -> Trouble:
    code = refusal.code or refusal.error
    detail = plain(refusal.problem.get("detail") or refusal.problem.get("error_description") or "")
    if code == "device_pending":
        regime = Regime.PENDING
    elif not code or code in PASSING or refusal.status == 429:
        # Without a code it is no answer of attestd's: something in between said no.
        regime = Regime.OUTAGE
    else:
        regime = Regime.DENIED
    return Trouble(
        regime,
        plain(code or refusal.status),
        detail or "no reason was given",
        tuple(_findings(refusal)),
        refusal.retry_after,
    )


def _findings(refusal: Refusal) -> list[Mapping[str, Any]]:
    """Those that a person may read: neither many nor long."""
    found = refusal.problem.get("findings")
    listed = found[:_FINDINGS_SHOWN] if isinstance(found, list) else []
    return [each for each in listed if isinstance(each, dict) and len(json.dumps(each)) <= _FINDING_LIMIT]


def told_again(error: Exception) -> Exception:
    """The same word to somebody else: a new exception, without the frames and the findings that the first
    one holds on to."""
    match error:
        case Refusal():
            words = {name: plain(error.problem[name]) for name in _SAID if name in error.problem}
            return Refusal(error.status, words, error.retry_after, error.nonce)
        case Unreachable():
            return type(error)(str(error), retry_after=error.retry_after)
        case DeviceError():
            return DeviceError(error.reason, error.detail)
    return type(error)(str(error))
