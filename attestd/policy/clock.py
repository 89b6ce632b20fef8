"""Does this boot follow the last accepted one in a way that the policy accepts?

A reset counter that went back is refused whatever the policy says: the TPM was cleared, or an earlier state
of a virtual one was restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attestd.policy.fields import Fields
from attestd.policy.findings import Finding
from tpm.structures.attest import Quote
from tpm.verify.continuity import Baseline, Continuity

_KNOWN = ("on_reset", "on_resume", "on_unsafe", "on_firmware_change")
_ANSWERS = ("accept", "reject")


@dataclass(frozen=True, slots=True)
class ClockRules:
    """[clock] as it was loaded, "accept" or "reject" each.

    `on_reset` is about a new boot that no new boot id explains. `on_resume` is about a restart within one
    boot of the operating system, as after suspend; None: as `on_reset`. `on_unsafe`: the TPM lost its power
    without warning, so that its clock may have been set back a little. `on_firmware_change`: the TPM's own
    firmware is another than when the device was last accepted.
    """

    on_reset: str = "accept"
    on_resume: str | None = None
    on_unsafe: str = "accept"
    on_firmware_change: str = "accept"


@dataclass(frozen=True, slots=True)
class Past:
    """The last accepted quote's clock, None if there was none, and the quote that is judged now."""

    baseline: Baseline | None
    quote: Quote


def load_clock(document: Fields) -> ClockRules:
    """The table [clock], or what it says when it is left out."""
    if not document.has("clock"):
        return ClockRules()
    fields = Fields(document.value("clock"), "clock", known=_KNOWN)
    given = {name: fields.choice(name, _ANSWERS) for name in _KNOWN if fields.has(name)}
    if not given:
        fields.choice("on_reset", _ANSWERS)  # an empty table is refused as one without its key
    return ClockRules(**given)


def judge_clock(rules: ClockRules, continuity: Continuity, past: Past | None) -> Iterator[Finding]:
    """Counters and clock did not go back; the TPM is in the state that the policy asks for."""
    match continuity.kind:
        case "first" | "same_boot" | "restart" | "reset":
            pass
        case "stale" | "rollback":
            forward = ("same_boot", "restart", "reset")
            yield Finding("clock_rollback", "clock", forward, continuity.kind, artefact=_gone_back(past))
        case _:
            raise ValueError(f"a continuity of kind {continuity.kind!r} is not one that this appraisal knows")
    if past is None:
        return
    if rules.on_unsafe == "reject" and not past.quote.clock.safe:
        yield Finding("clock_unsafe", "clock", ("safe",), "not safe")
    before, found = past.baseline, past.quote.firmware_version
    if rules.on_firmware_change == "reject" and before is not None and before.firmware_version != found:
        expected = (f"{before.firmware_version:016x}",)
        yield Finding("tpm_firmware_changed", "tpm", expected, f"{found:016x}")


def judge_reset(rules: ClockRules, continuity: Continuity, boot_id: str | None) -> Iterator[Finding]:
    """A new boot is explained by a new boot id, where the policy asks for that."""
    if continuity.explained:
        return
    if continuity.kind == "reset" and rules.on_reset == "reject":
        yield Finding("reset_unexplained", "clock", ("a new boot id",), boot_id)
    elif continuity.kind == "restart":
        if rules.on_resume == "reject":
            yield Finding("resume_rejected", "clock", ("no restart without a new boot id",), boot_id)
        elif rules.on_resume is None and rules.on_reset == "reject":
            yield Finding("reset_unexplained", "clock", ("a new boot id",), boot_id)


def _gone_back(past: Past | None) -> str | None:
    """What it looks like: a cleared TPM counts from zero, a restored one goes on from where it was."""
    if past is None or past.baseline is None:
        return None
    clock, before = past.quote.clock, past.baseline
    counts = f"reset count {clock.reset_count} after {before.reset_count}"
    if clock.reset_count == 0:
        return f"{counts}: the TPM was cleared"
    if clock.clock >= before.clock:
        return f"{counts}, but a later clock: another TPM's state"
    return f"{counts}, and an earlier clock: a restored state, or a TPM that was cleared some resets ago"
