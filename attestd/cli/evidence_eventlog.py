"""Does this event log replay, and what did the machine boot?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from attestd.cli.evidence_files import Pcrs, read_file, read_pcrs
from attestd.cli.evidence_story import print_story
from attestd.cli.output import json_option, print_object
from tpm.errors import StructureError
from tpm.eventlog import reader, userspace
from tpm.eventlog.compare import Divergence, divergence, replayed_states
from tpm.eventlog.events import EventLog
from tpm.eventlog.facts.boot import BootFacts, read_facts
from tpm.eventlog.findings import Finding
from tpm.eventlog.replay import Replay, replay
from tpm.eventlog.userspace import UserspaceLog

_PREFERRED = ("sha256", "sha384", "sha512", "sha1")
_SAID = {"match": "match", "mismatch": "mismatch", "not_quoted": "unquoted"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that can be said of the files; what could not be read is None."""

    reason: str | None
    detail: str | None = None
    log: EventLog | None = None
    userspace: UserspaceLog | None = None
    replayed: Replay | None = None
    states: Mapping[str, Mapping[int, str]] | None = None
    divergences: tuple[Divergence, ...] = ()
    facts: BootFacts | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        found = () if self.replayed is None else self.replayed.findings
        return found if self.facts is None else (*found, *self.facts.findings)


@click.command("eventlog")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--userspace",
    "systemd",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="systemd's tpm2-measure.log, replayed after the firmware's.",
)
@click.option(
    "--pcrs",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help='Register values, as {"sha256": {"0": "<hex>"}}; else every register is unquoted.',
)
@json_option
def command(log: Path, systemd: Path | None, pcrs: Path | None, as_json: bool) -> None:
    """Read a firmware event LOG (binary_bios_measurements): exit status 0 if it replays, 1 if not.

    Without --json the boot is told as a story, one line an event.
    """
    raw = read_file(log, reader.SIZE_LIMIT)
    more = None if systemd is None else read_file(systemd, userspace.SIZE_LIMIT)
    verdict = judge(raw, more, {} if pcrs is None else read_pcrs(pcrs))
    if as_json:
        print_object(as_object(verdict))
    else:
        print_story(verdict)
    sys.exit(0 if verdict.reason is None else 1)


def judge(raw: bytes, more: bytes | None, pcrs: Pcrs) -> Verdict:
    """Read, replay, compare, and take the facts of the bank that is best proven."""
    try:
        log = reader.read_log(raw)
    except StructureError as error:
        return Verdict(error.reason, error.detail)
    try:
        systemd = None if more is None else userspace.read_userspace(more)
    except StructureError as error:
        facts = read_facts(log, bank=_bank(log, pcrs), registers=None)
        return Verdict(error.reason, error.detail, log, facts=facts)
    replayed = replay(log, systemd)
    states = {
        bank: {**dict.fromkeys(values, "unquoted"), **_states(replayed, bank, pcrs)}
        for bank, values in replayed.banks.items()
    }
    divergences = tuple(
        divergence(log, bank, register, pcrs[bank][register], userspace=systemd)
        for bank, registers in states.items()
        for register, state in registers.items()
        if state == "mismatch"
    )
    facts = read_facts(log, bank=_bank(log, pcrs), registers=None, userspace=systemd)
    reason = "log_replay" if divergences else None if replayed.banks else "log_bank_missing"
    return Verdict(reason, None, log, systemd, replayed, states, divergences, facts)


def _states(replayed: Replay, bank: str, pcrs: Pcrs) -> dict[int, str]:
    """Only registers that the logs extend are spoken of."""
    if bank not in pcrs:
        return {}
    found = replayed_states(replayed, bank, pcrs[bank])
    return {register: _SAID[state] for register, state in found.items() if state in _SAID}


def _bank(log: EventLog, pcrs: Pcrs) -> str:
    """The bank whose facts are told: of those that there are values for, or else of all, the one most in
    use.
    """
    known = [bank for bank in _PREFERRED if bank in log.algorithms]
    return next((bank for bank in known if bank in pcrs), known[0] if known else "sha256")


def as_object(verdict: Verdict) -> dict[str, Any]:
    """The JSON of DESIGN §7, whole also when the evidence does not hold."""
    log, replayed, states, facts = verdict.log, verdict.replayed, verdict.states, verdict.facts
    banks = (
        None
        if replayed is None
        else {
            bank: {str(register): value.hex() for register, value in values.items()}
            for bank, values in replayed.banks.items()
        }
    )
    return {
        "valid": verdict.reason is None,
        "reason": verdict.reason,
        "format": None if log is None else log.format,
        "events": 0 if verdict.reason == "log_empty" else None if log is None else len(log.events),
        "banks": banks,
        "replay": None
        if states is None
        else {
            bank: {str(register): state for register, state in registers.items()}
            for bank, registers in states.items()
        },
        "secure_boot": None if facts is None else facts.secure_boot.enabled,
        "findings": [_finding(one) for one in verdict.findings]
        + [_divergence(one) for one in verdict.divergences],
        "detail": verdict.detail,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "register": finding.register,
        "event": finding.event,
        "detail": finding.detail,
    }


def _divergence(found: Divergence) -> dict[str, Any]:
    return {
        "code": "register_mismatch",
        "register": found.register,
        "event": found.event,
        "detail": found.detail,
    }
