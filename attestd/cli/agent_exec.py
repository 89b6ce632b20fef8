"""How does a program get this machine's credentials that knows of nothing but files?"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from attestd.agent.errors import Refusal
from attestd.agent.program.child import NotStarted
from attestd.agent.program.exec import Plan, execute
from attestd.cli import failures
from attestd.cli.agent_options import check_name, reported
from attestd.cli.agent_socket import socket_option
from attestd.config import environment

PATIENCE_SECONDS = 60


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option(
    "--agent", metavar="NAME", help="As which agent, where the program may be several; else the first."
)
@socket_option
@click.option("--audience", "audiences", multiple=True, metavar="A", help="Also a JWT-SVID for these.")
@click.option(
    "--on-renewal",
    "notice",
    metavar="SIGNAL",
    help="What the program is sent when its files have changed, such as HUP.",
)
@click.option(
    "--wait",
    "patience",
    type=click.FloatRange(0),
    default=PATIENCE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an identity.",
)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    agent: str | None,
    socket: Path,
    audiences: tuple[str, ...],
    notice: str | None,
    patience: float,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM with credentials in files that are kept fresh while it runs.

    ATTESTD_SVID_FILE, ATTESTD_KEY_FILE and ATTESTD_BUNDLE_FILE name the X.509-SVID, ATTESTD_JWT_FILE,
    ATTESTD_WIT_FILE and ATTESTD_WIT_KEY_FILE the tokens, as far as they are granted. ATTESTD_CREDENTIALS is a
    link to all files of one round: resolve it once to read a certificate with its key. PROGRAM's exit status
    is passed on, 128+N for a signal N.
    """
    if agent is not None:
        check_name(agent)
    plan = Plan(
        program,
        environment(),
        socket,
        agent,
        tuple(dict.fromkeys(audiences)),
        None if notice is None else _signal(notice),
        patience,
    )
    with reported():
        try:
            status = asyncio.run(execute(plan, say=lambda line: click.echo(f"attestd: {line}", err=True)))
        except NotStarted as error:
            click.echo(f"attestd: {error}", err=True)
            status = error.status
        except Refusal as refusal:
            raise failures.Failure(str(refusal)) from None
    raise SystemExit(status)


def _signal(name: str) -> int:
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise failures.Unusable(f"{name!r} is no signal; name one such as HUP or USR1") from None
