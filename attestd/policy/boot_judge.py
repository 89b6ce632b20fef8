"""Do the facts of this boot match [boot]?

A fact that is demanded and not proven is the code `fact_unproven`: the log's data is not signed, so that what
is missing from it says nothing against the machine. All other objections rest on what was measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

from attestd.policy.boot import UNAVAILABLE, BootRules, revision
from attestd.policy.command_line import judge_command_lines
from attestd.policy.findings import MAX_TOLD, Finding
from attestd.policy.proven_boot import ProvenBoot
from tpm.eventlog.facts.authority import Authority

UNPROVEN = "fact_unproven"


def judge_boot(rules: BootRules, boot: ProvenBoot) -> tuple[Finding, ...]:
    """What the policy objects to, and which demanded facts this log does not prove."""
    if rules.event_log == UNAVAILABLE:
        return ()
    found: list[Finding] = []
    # Without Secure Boot nobody needs an authority, and whoever runs later can measure a good one.
    if rules.secure_boot or rules.authorities:
        found += _judge_secure_boot(boot) or _hidden(rules, boot, 7, "Secure Boot and its authorities")
    if rules.authorities:
        found += islice(_judge_authorities(rules, boot), MAX_TOLD)
    if rules.dbx_revision is not None or rules.dbx_includes:
        found += _judge_dbx(rules, boot)
    if rules.judges_command_line:
        for register in (8, 11, 12):
            found += _hidden(rules, boot, register, "command_line")
        found += islice(judge_command_lines(rules, boot), MAX_TOLD)
    if rules.phases:
        if not rules.judges_command_line:
            found += _hidden(rules, boot, 11, "phases")
        found += _judge_phases(rules, boot)
    return tuple(found)


def _judge_secure_boot(boot: ProvenBoot) -> list[Finding]:
    facts = boot.facts.secure_boot
    event = facts.events[0] if facts.events else None
    words = None if event is None else boot.words(event)
    found: list[Finding] = []
    if facts.enabled is None:
        found.append(Finding(UNPROVEN, "pcr7", ("Secure Boot's state",), None, event, words))
    elif not facts.enabled:
        found.append(Finding("secure_boot_off", "pcr7", ("on",), "off", event, words))
    for mode in ("SetupMode", "AuditMode"):
        if facts.modes.get(mode):
            found.append(Finding("secure_boot_off", "pcr7", (f"{mode} off",), f"{mode} on", event, words))
    return [*found, *_undone(boot)]


def _undone(boot: ProvenBoot) -> Iterator[Finding]:
    """What makes Secure Boot worthless although the firmware's variable says "on"."""
    facts = boot.facts.secure_boot
    for state in facts.shim_state:
        # shim then starts whatever it is given.
        if state.name == "MokSBState" and state.data.strip(b"\0"):
            words = boot.words(state.event)
            yield Finding("secure_boot_off", "pcr7", ("shim's validation on",), "off", state.event, words)
    for action in facts.actions:
        if action.text == "UEFI Debug Mode":
            words = boot.words(action.event)
            yield Finding("secure_boot_off", "pcr7", ("no debugger",), action.text, action.event, words)


def _hidden(rules: BootRules, boot: ProvenBoot, register: int, fact: str) -> Iterator[Finding]:
    """While an event of the register is not understood, nobody can say that it is none of these."""
    unexplained = boot.facts.unexplained.get(register, ())
    events = [event for event in unexplained if boot.digest(event) not in rules.known_events]
    expected = (f"for {fact}, only events that are understood or among known_events",)
    for event in events[:MAX_TOLD]:
        digest = boot.digest(event)
        yield Finding(UNPROVEN, f"pcr{register}", expected, digest.hex(), event, boot.words(event))
    if more := len(events[MAX_TOLD:]):
        yield Finding(UNPROVEN, f"pcr{register}", expected, f"{more} events more")


def _judge_authorities(rules: BootRules, boot: ProvenBoot) -> Iterator[Finding]:
    expected = tuple(sorted(one.hex() for one in rules.authorities))
    authorities = boot.facts.secure_boot.authorities
    if not authorities:
        yield Finding(UNPROVEN, "pcr7", ("an authority that let an image run",))
    for authority in authorities:
        digest = authority_digest(authority)
        if digest not in rules.authorities:
            words = boot.words(authority.event)
            yield Finding("authority_unexpected", "pcr7", expected, digest.hex(), authority.event, words)


def authority_digest(authority: Authority) -> bytes:
    """By what a policy knows it: the SHA-256 of its certificate, or the hash that stands in the database."""
    if authority.certificate is not None:
        return hashlib.sha256(authority.certificate).digest()
    return authority.hash or b""


def _judge_dbx(rules: BootRules, boot: ProvenBoot) -> Iterator[Finding]:
    dbx = boot.facts.secure_boot.databases.get("dbx")
    if dbx is None:
        yield Finding(UNPROVEN, "pcr7", ("dbx, the list of what is revoked",))
        return
    words = boot.words(dbx.event)
    if rules.dbx_revision is not None:
        found = dbx.revision
        if found is None or revision(found) < rules.dbx_revision:
            expected = ("revision {}.{} or later".format(*rules.dbx_revision),)
            yield Finding("dbx_outdated", "pcr7", expected, found, dbx.event, words)
    missing: Iterable[bytes] = sorted(rules.dbx_includes - dbx.hashes)
    for digest in missing:
        yield Finding("dbx_outdated", "pcr7", (digest.hex(),), None, dbx.event, words)


def _judge_phases(rules: BootRules, boot: ProvenBoot) -> Iterator[Finding]:
    found = ":".join(boot.facts.phases)
    if found not in rules.phases:
        yield Finding("phase_unexpected", "pcr11", rules.phases, found or None)
