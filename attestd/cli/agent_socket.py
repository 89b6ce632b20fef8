"""At which socket is this machine's agent asked?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from attestd.agent.settings import DEFAULT_SOCKET
from attestd.agent.workload.client import socket_of
from attestd.cli.agent_options import reported
from attestd.config import environment

Command = TypeVar("Command", bound=Callable[..., Any])
ENDPOINT = "SPIFFE_ENDPOINT_SOCKET"
WHERE = f"{ENDPOINT}, else {DEFAULT_SOCKET}"


def socket_option(command: Command) -> Command:
    """Gives the command `socket: Path`."""
    return click.option(
        "--socket",
        metavar="PATH",
        callback=lambda _, __, named: socket_path(named),
        help=f"The agent's socket; else {WHERE}.",
    )(command)


def socket_path(named: str | None) -> Path:
    """The one named, as a path or as SPIFFE writes it (unix:///PATH), else where the agent is by default."""
    told = named or environment().get(ENDPOINT)
    if not told:
        return DEFAULT_SOCKET
    if ":" not in told and named:
        return Path(told).absolute()
    with reported():
        return socket_of(told)
