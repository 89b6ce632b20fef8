"""Which token is wanted, and how is it shown, whoever gives it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from attestd.agent.proofs import target
from attestd.agent.transport import good_nonce
from attestd.cli import failures
from attestd.cli.agent_options import check_name
from attestd.cli.output import print_object

TOKEN_LIMIT = 16 * 1024
"""Bytes of a user's token."""


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


def read_wish(given: dict[str, Any]) -> Wish:
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


def show(token: dict[str, Any], headers: dict[str, str]) -> None:
    """One object, and a line for each header of a request."""
    print_object(token)
    for name, value in headers.items():
        click.echo(f"{name}: {value}")
