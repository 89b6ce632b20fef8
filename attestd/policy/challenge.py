"""Which registers of which banks does a challenge ask for?"""

from __future__ import annotations

from collections.abc import Iterable

from attestd.policy.document import Policy
from attestd.policy.registers import BANKS

WITHOUT_POLICY = (("sha256", tuple(range(8))),)
"""What is asked for while no policy is active: the firmware's own registers."""


def wants_logs(policies: Iterable[Policy]) -> tuple[bool, bool]:
    """Does an active policy need the boot's event log, and does one need IMA's list?"""
    known = tuple(policies)
    return any(policy.needs_event_log for policy in known), any(policy.needs_ima_log for policy in known)


def challenge_selection(policies: Iterable[Policy]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """(bank, registers) for each bank that an active policy names, the strongest first.

    The same for every device: what the policies of one bank need together. A device quotes the first that its
    TPM has.
    """
    needed: dict[str, set[int]] = {}
    for policy in policies:
        needed.setdefault(policy.bank, set()).update(policy.needed())
    if not needed:
        return WITHOUT_POLICY
    return tuple((bank, tuple(sorted(needed[bank]))) for bank in BANKS if bank in needed)
