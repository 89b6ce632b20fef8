"""How does a shell on the device get an access token that only its TPM can use?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from attestd.agent.machine import Machine
from attestd.agent.proofs import target
from attestd.agent.state import State
from attestd.agent.token import AccessToken, Asked, attest_client, request_token
from attestd.agent.transport import good_nonce
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
from attestd.cli.output import print_object, progress
from attestd.clock import now_ms

TOKEN_LIMIT = 16 * 1024
"""Bytes of a user's token."""


@click.command("token")
@server_options
@tpm_option
@state_option
@log_options
@click.option("--audience", required=True, metavar="A", help="Whom the token is for, as the policy names it.")
@click.option("--agent", metavar="NAME", help="For which agent; else the one of the last attestation.")
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
def command(
    state: Path, tpm: str, server: str | None, ca: Path | None, proof: tuple[str, str] | None, **given: Any
) -> None:
    """Attest, get an access token bound to a key in the TPM, and print it. Nothing is written to disk.

    The key cannot be used any more when the command has ended: what calls with the token for longer has
    attestd.agent.auth. With --proof a shell makes the one call that it was made for.
    """
    kept = State(state)
    asked = _asked(given, kept, proof)
    files = log_files(given)
    with reported(kept, agent=asked.agent):
        membership, _ = kept.enrolment()
        machine = Machine(tpm, kept, server_of(server, ca, membership), files)
        with progress("Attesting"):
            attestation = attest_client(machine, asked.agent)
        kept.keep_last(outcome("accepted", {"policy": attestation.policy}, asked.agent))
        if membership.state != "active":
            kept.keep_membership(replace(membership, state="active"))
    with reported():
        token = request_token(machine.server, attestation, asked, now=now_ms())
        headers = {} if proof is None else token.headers(*proof, now=now_ms(), nonce=given["nonce"])
    _print(token, headers)


def _print(token: AccessToken, headers: dict[str, str]) -> None:
    print_object(token.told())
    for name, value in headers.items():
        click.echo(f"{name}: {value}")


def _asked(given: dict[str, Any], kept: State, proof: tuple[str, str] | None) -> Asked:
    """What the options say; Unusable before anything is asked of TPM or service."""
    agent = given["agent"] or (kept.last() or {}).get("agent")
    if not isinstance(agent, str):
        raise failures.Unusable("which agent is the token for? name it with --agent NAME")
    check_name(agent)
    if proof is not None:
        _check_proof(*proof)
    if given["nonce"] is not None and (proof is None or good_nonce(given["nonce"]) is None):
        raise failures.Unusable("--nonce is the value of a header DPoP-Nonce, and belongs to --proof")
    scopes = tuple(dict.fromkeys(word for scope in given["scopes"] for word in scope.split()))
    subject = None if given["subject"] is None else _read_token(given["subject"])
    return Asked(agent, given["audience"], scopes, subject)


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
