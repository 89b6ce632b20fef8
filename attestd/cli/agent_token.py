"""How does a shell on the device get an access token that only its TPM can use?

From the agent that runs here, which any program may ask that its operator named; or by attesting itself, for
who may use the TPM.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from attestd.agent.workload.client import TokenGiven, WorkloadClient
from attestd.cli import failures
from attestd.cli.agent_options import (
    log_options,
    reported,
    server_options,
    state_option,
    tpm_option,
)
from attestd.cli.agent_socket import ENDPOINT, WHERE, socket_path
from attestd.cli.agent_token_wish import Wish, read_wish, show
from attestd.config import environment

OF_TPM = ("tpm", "state", "server", "ca", "event_log", "userspace_log", "ima_log")
"""What is said of a machine that attests here and now; the agent has its own of all that."""


@click.command("token")
@server_options
@tpm_option
@state_option
@log_options
@click.option(
    "--socket",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help=f"Ask the running agent there, else at {WHERE}; so without this if {ENDPOINT} is set.",
)
@click.option("--audience", required=True, metavar="A", help="Whom the token is for, as the policy names it.")
@click.option(
    "--agent", metavar="NAME", help="For which agent; else the only one, or the last attestation's."
)
@click.option("--scope", "scopes", multiple=True, metavar="S", help="Else all that the policy grants.")
@click.option(
    "--subject-token",
    "subject",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="The token of the user on whose behalf the agent acts; - reads it from standard input.",
)
@click.option(
    "--proof",
    type=(str, str),
    metavar="METHOD URL",
    help="Print also the two headers of one request with it, for a shell.",
)
@click.option("--nonce", metavar="N", help="What the resource gave as DPoP-Nonce, for --proof.")
@click.pass_context
def command(context: click.Context, /, socket: str | None, **given: Any) -> None:
    """Get an access token bound to a key in the TPM, and print it. Nothing is written to disk.

    From the running agent (--socket), which keeps the key; or by an attestation of its own, and then the key
    cannot be used any more when the command has ended: what calls with the token for longer has
    attestd.agent.auth. With --proof a shell makes the one call that it was made for.
    """
    named = [name for name in OF_TPM if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if socket is not None and named:
        option = f"--{named[0].replace('_', '-')}"
        raise failures.Unusable(f"--socket asks the running agent, which has its own; leave {option} out")
    wish = read_wish(given)
    if socket is not None or (environment().get(ENDPOINT) and not named):
        _from_agent(socket_path(socket), wish)
        return
    from attestd.cli.agent_token_by_tpm import print_token  # The TPM's library, for who needs it.

    print_token(wish, given)


def _from_agent(path: Path, wish: Wish) -> None:
    with reported():
        token, proof = asyncio.run(_asked(path, wish))
    told = {
        "access_token": token.text,
        "token_type": token.token_type,
        "expires_in": token.expires_in,
        "scope": token.scope,
    }
    show(told, {} if proof is None else {"Authorization": f"DPoP {token.text}", "DPoP": proof})


async def _asked(path: Path, wish: Wish) -> tuple[TokenGiven, str | None]:
    agent = wish.agent or ""
    async with WorkloadClient(path) as client:
        token = await client.access_token(agent, wish.audience, wish.scopes, wish.subject_token)
        proof = None
        if wish.proof is not None:
            proof = await client.prove(agent, token.text, *wish.proof, wish.nonce)
    return token, proof
