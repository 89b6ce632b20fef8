"""What happened to the machine since we last believed it?

Facts, no judgement: whether a reset is welcome is the policy's word.
"""

from dataclasses import dataclass
from typing import Literal

from tpm.verify.quote import VerifiedQuote

Kind = Literal["first", "same_boot", "restart", "reset", "stale", "rollback"]


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of one TPM, by its own counters."""

    reset_count: int
    restart_count: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the last accepted quote of a device said. `clock` in milliseconds; `boot_id` is the operating
    system's word.
    """

    reset_count: int
    restart_count: int
    clock: int
    firmware_version: int
    boot_id: str | None
    safe: bool


@dataclass(frozen=True, slots=True)
class Continuity:
    """`kind`: nothing known before, the same boot, a restart (a resume), a reset (a new boot), evidence older
    than what we have within one boot ("stale"), or a reset counter that went back ("rollback": a cleared or
    another TPM).

    `explained` is false only for a restart or reset for which the machine names no new boot id.
    """

    kind: Kind
    explained: bool


def boot_of(quote: VerifiedQuote) -> Boot:
    """The boot in which this quote was made."""
    return Boot(quote.quote.clock.reset_count, quote.quote.clock.restart_count)


def judge_continuity(baseline: Baseline | None, quote: VerifiedQuote, boot_id: str | None) -> Continuity:
    """How the quote's counters stand to the baseline's. `safe` is recorded and not judged; the firmware
    version too.
    """
    if baseline is None:
        return Continuity("first", True)
    now, clock = boot_of(quote), quote.quote.clock.clock
    new_boot = boot_id is not None and boot_id != baseline.boot_id
    # 1. Resets are counted for the TPM's whole life.
    if now.reset_count < baseline.reset_count:
        return Continuity("rollback", True)
    if now.reset_count > baseline.reset_count:
        return Continuity("reset", new_boot)
    # 2. Restarts are counted since the last reset.
    if now.restart_count < baseline.restart_count:
        return Continuity("stale", True)
    if now.restart_count > baseline.restart_count:
        return Continuity("restart", new_boot)
    # 3. Within one boot time only goes forward; two quotes may share a millisecond.
    return Continuity("stale" if clock < baseline.clock else "same_boot", True)
