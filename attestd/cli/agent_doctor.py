"""What keeps this machine from having an identity, and what helps?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from attestd.agent.doctor.check import Check, Unread, made
from attestd.agent.doctor.checks import checks
from attestd.agent.settings import Settings
from attestd.cli.agent_settings import said_instead, settings_file, settings_from, settings_options
from attestd.cli.failures import Failure
from attestd.cli.output import json_option, print_object
from attestd.clock import now_ms


@click.command("doctor")
@settings_options
@json_option
def command(as_json: bool, **given: Any) -> None:
    """Look at everything that an identity rests on: TPM, logs, clock, service, rights, settings. Changes
    nothing; exit 1 if something FAILs."""
    source: Path | Unread | None = settings_file(given["config"])
    settings = made(lambda: settings_from(**given))
    if isinstance(settings, Unread):
        source = settings
        instead = {name: value for name, value in given.items() if name != "config"}
        settings = said_instead(Settings(), **instead)
    tell(checks(settings, now=now_ms, source=source), as_json=as_json)


def tell(found: Iterable[Check], *, as_json: bool = False) -> None:
    """Print each as it comes. Failure, which ends the command with status 1, if one FAILs."""
    failed = 0
    for check in found:
        failed += check.verdict == "fail"
        if as_json:
            print_object(asdict(check))
        else:
            click.echo(line_of(check))
    if failed:
        raise Failure(f"{failed} of these checks FAIL" if failed > 1 else "1 of these checks FAILs")


def line_of(check: Check) -> str:
    word = "FAIL" if check.verdict == "fail" else check.verdict
    fix = f"; {check.fix}" if check.fix else ""
    return f"{word:<5} {check.name:<15} {check.found}{fix}"
