"""How does a shell on the device get an access token that only its TPM can use?

From the agent that runs here, which any program may ask that its operator named; or by attesting itself, for
who may use the TPM.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from attestd.agent.proofs import target
from attestd.agent.transport import good_nonce
from attestd.agent.workload.client import TokenGiven, WorkloadClient
from attestd.cli import failures
from attestd.cli.agent_options import (
    check_name,
    log_options,
    reported,
    server_options,
    state_option,
    tpm_option,
)
from attestd.cli.agent_socket import ENDPOINT, WHERE, socket_path
from attestd.cli.output import print_object
from attestd.config import environment

TOKEN_LIMIT = 16 * 1024
"""Bytes of a user's token."""
OF_TPM = ("tpm", "state", "server", "ca", "event_log", "userspace_log", "ima_log")
"""What is said of a machine that attests here and now; the agent has its own of all that."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A token for one audience, for this agent (None: the one there is), and a proof for one request with it,
    as method and URL, if wanted."""

    agent: str | None
    audience: str
    scopes: tuple[str, ...]
    subject_token: str | None = field(repr=False)
    proof: tuple[str, str] | None
    nonce: str | None


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
    wish = _wish(given)
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


def show(token: dict[str, Any], headers: dict[str, str]) -> None:
    """One object, and a line for each header of a request."""
    print_object(token)
    for name, value in headers.items():
        click.echo(f"{name}: {value}")


def _wish(given: dict[str, Any]) -> Wish:
    """What the options say; Unusable before anything is asked of agent, TPM or service."""
    agent, proof, nonce = given["agent"], given["proof"], given["nonce"]
    if agent is not None:
        check_name(agent)
    if proof is not None:
        _check_proof(*proof)
    if nonce is not None and (proof is None or good_nonce(nonce) is None):
        raise failures.Unusable("--nonce is the value of a header DPoP-Nonce, and belongs to --proof")
    scopes = tuple(dict.fromkeys(word for scope in given["scopes"] for word in scope.split()))
    subject = None if given["subject"] is None else _read_token(given["subject"])
    return Wish(agent, given["audience"], scopes, subject, proof, nonce)


def _check_proof(method: str, url: str) -> None:
    if not method.isascii() or not method.isalpha():
        raise failures.Unusable(f"{method!r} is no HTTP method; write --proof GET https://…")
    try:
        target(url)
    except ValueError:
        raise failures.Unusable(f"{url!r} is no absolute URL; write --proof {method} https://…") from None


def _read_token(path: Path) -> str:
    with click.open_file(str(path), "rb") as file:
        raw: bytes = file.read(TOKEN_LIMIT + 1)
    text = raw.decode("ascii", "replace").strip()
    if not text or len(raw) > TOKEN_LIMIT or not text.isascii() or len(text.split()) > 1:
        raise failures.Unusable(f"{path} holds no token: one JWT, at most {TOKEN_LIMIT} bytes")
    return text
