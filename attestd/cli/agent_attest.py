"""How does an operator have this machine attest once, and where does it put what it gets?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from attestd.agent.attest import Wanted, attest
from attestd.agent.delivery.deliver import deliver
from attestd.agent.errors import plain
from attestd.agent.formats import SUFFIXES
from attestd.agent.logs import Logs
from attestd.agent.machine import opened
from attestd.agent.running.bundle import BUNDLE_PATH, check_domain, read_bundle
from attestd.agent.state import Membership, State
from attestd.agent.transport import Server
from attestd.cli import failures
from attestd.cli.agent_options import (
    check_name,
    log_files,
    log_options,
    outcome,
    reported,
    server_of,
    server_options,
    state_option,
    tpm_option,
)
from attestd.cli.output import progress


@click.command("attest")
@server_options
@tpm_option
@state_option
@click.option(
    "--agent", metavar="NAME", help="The agent that the credentials are for, as the policy names it."
)
@click.option("--format", "formats", multiple=True, type=click.Choice(list(SUFFIXES)))
@click.option("--key", type=click.Choice(["tpm", "software"]), default="tpm", show_default=True)
@click.option("--audience", "audiences", multiple=True, metavar="A", help="Whom a jwt-svid is for.")
@click.option("--seal", "seals", multiple=True, metavar="NAME", help="A sealed key of the policy.")
@log_options
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def command(out: Path, state: Path, tpm: str, server: str | None, ca: Path | None, **asked: Any) -> None:
    """Prove how this machine booted and write what its policy grants into DIR."""
    kept, wanted = State(state), _wanted(asked)
    logs = Logs(log_files(asked), kept)
    with reported(kept, agent=wanted.agent):
        membership, recipe = kept.enrolment()
        where = server_of(server, ca, kept)
        with progress("Attesting"):
            received = attest(
                partial(opened, tpm, state), where, membership, recipe=recipe, wanted=[wanted], logs=logs
            )
            bundle = where.get(BUNDLE_PATH)
        trust_domain = _trust_domain(bundle, membership, where)
        paths = deliver(received, bundle, out=out)
        kept.keep_last(outcome("accepted", received.answer, wanted.agent))
        told = replace(membership, state="active", trust_domain=trust_domain)
        if told != membership:
            kept.keep_membership(told)
    for path in paths:
        click.echo(path)
    click.echo(f"renew after {plain(received.answer.get('renew_after'))}", err=True)


def _trust_domain(document: Mapping[str, Any], membership: Membership, where: Server) -> str:
    """Of which this machine is from now on; Unreachable where it is of another one."""
    bundle, _ = read_bundle(document)
    check_domain(bundle, membership.trust_domain, url=where.url)
    return bundle.trust_domain


def _wanted(asked: Mapping[str, Any]) -> Wanted:
    formats, audiences, seals = (
        tuple(dict.fromkeys(asked[each])) for each in ("formats", "audiences", "seals")
    )
    wanted = Wanted(asked["agent"], formats, asked["key"], audiences, seals)
    for name in (*seals, *([wanted.agent] if wanted.agent is not None else [])):
        check_name(name)
    if wanted.formats and wanted.agent is None:
        raise failures.Unusable("which agent are the credentials for? name it with --agent NAME")
    if wanted.audiences and "jwt-svid" not in wanted.formats:
        raise failures.Unusable(
            "an audience belongs to a jwt-svid; add --format jwt-svid or leave --audience out"
        )
    if "jwt-svid" in wanted.formats and not wanted.audiences:
        raise failures.Unusable("whom is the jwt-svid for? name it with --audience A")
    return wanted
