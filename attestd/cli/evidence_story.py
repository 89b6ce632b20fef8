"""How does a boot read as a story: one line an event, its register, what it is, and whose it is?

Colour only adds: without a terminal the same words stand there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tpm.eventlog.story import Line, story

if TYPE_CHECKING:
    from attestd.cli.evidence_eventlog import Verdict

_COLOURS = {
    "firmware": "blue",
    "driver": "blue",
    "option ROM": "yellow",
    "boot loader": "green",
    "shim": "green",
    "MokManager": "green",
    "GRUB": "green",
    "systemd-boot": "green",
    "kernel": "magenta",
    "Windows": "magenta",
    "systemd": "cyan",
}
_STATES = {"match": "green", "mismatch": "red", "unquoted": None}
_HEADING = f"{'event':>5}  {'pcr':>3}  {'component':<12}  what"


def print_story(verdict: Verdict) -> None:
    """The events, then what is odd, then how the registers compare, then the verdict."""
    if verdict.log is not None and verdict.facts is not None:
        click.echo(_HEADING.replace("pcr", "reg") if verdict.log.format == "ccel" else _HEADING)
        for line in story(verdict.log, verdict.facts, verdict.userspace):
            click.echo(_told(line))
        click.echo("")
        for finding in verdict.findings:
            where = "" if finding.event is None else f"event {finding.event}: "
            click.echo(f"note: {where}{finding.detail} ({finding.code})")
        _print_registers(verdict)
    click.echo(_ending(verdict))


def _told(line: Line) -> str:
    register = str(line.register) if line.register < 100 else "-"
    component = click.style(f"{line.component:<12}", fg=_COLOURS.get(line.component))
    text = line.text if line.measured else click.style(line.text, dim=True)
    return f"{line.event:>5}  {register:>3}  {component}  {text}"


def _print_registers(verdict: Verdict) -> None:
    for bank, registers in (verdict.states or {}).items():
        by_state: dict[str, list[str]] = {}
        for register, state in registers.items():
            by_state.setdefault(state, []).append(str(register))
        for state, names in by_state.items():
            said = click.style(state, fg=_STATES.get(state))
            click.echo(f"{bank}: register {', '.join(names)}: {said}")
    for one in verdict.divergences:
        click.echo(f"register {one.register}: {one.detail}")


def _ending(verdict: Verdict) -> str:
    if verdict.reason is not None:
        why = verdict.detail or "the log is not the history of these registers"
        return click.style(f"does not hold ({verdict.reason}): {why}", fg="red")
    secure_boot = {True: "on", False: "off", None: "not told"}
    enabled = verdict.facts.secure_boot.enabled if verdict.facts else None
    quoted = any("match" in registers.values() for registers in (verdict.states or {}).values())
    against = "replays to the values given" if quoted else "was compared with no register"
    return f"holds: the log {against}; Secure Boot is {secure_boot[enabled]}"
