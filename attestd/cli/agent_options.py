"""What do the device's commands share: TPM, state, service, and how it is told that something was refused?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from attestd.agent.errors import Misconfigured, NotEnrolled, Refusal, Unreachable
from attestd.agent.logs import OWN, LogFiles
from attestd.agent.settings import DEFAULT_STATE, DEFAULT_TPM, NAME
from attestd.agent.state import Membership, State
from attestd.agent.transport import Server
from attestd.cli import failures
from attestd.clock import now_ms, rfc3339
from attestd.config import environment

Command = TypeVar("Command", bound=Callable[..., Any])


def tpm_option(command: Command) -> Command:
    return click.option(
        "--tpm",
        default=lambda: environment().get("ATTESTD_TPM") or DEFAULT_TPM,
        show_default=f"ATTESTD_TPM, else {DEFAULT_TPM}",
        metavar="TCTI",
        help="The TPM, as tpm2-tools name it.",
    )(command)


def state_option(command: Command) -> Command:
    return click.option(
        "--state",
        default=DEFAULT_STATE,
        show_default=True,
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="What the device remembers of its enrolment.",
    )(command)


def server_options(command: Command) -> Command:
    ca = click.Path(exists=True, dir_okay=False, path_type=Path)
    with_ca = click.option(
        "--ca", type=ca, metavar="FILE", help="PEM of the CA that the server's certificate is from."
    )
    with_url = click.option(
        "--server", metavar="URL", help="The service, as its external_url says; kept at enrolment."
    )
    return with_url(with_ca(command))


def log_options(command: Command) -> Command:
    """The logs, each sent where the service asks for it: those named, else this machine's own."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option, what in (
        ("--ima-log", "IMA's list."),
        ("--userspace-log", "systemd's log of what it measured."),
        ("--event-log", "The firmware's log. Of named logs only these are sent, else this machine's own."),
    ):
        command = click.option(option, type=file, metavar="FILE", help=what)(command)
    return command


def log_files(given: Mapping[str, Any]) -> LogFiles:
    """The files that were named, and no others; this machine's own if none was. Another machine's log does
    not go with ours."""
    named = LogFiles(given["event_log"], given["userspace_log"], given["ima_log"])
    return OWN if named == LogFiles() else named


def enrolled_options(command: Command) -> Command:
    """--server and --ca for the verbs that ask no service: the one says which enrolment is meant, the other
    is taken because every agent verb takes it."""
    ca = click.option("--ca", expose_value=False, metavar="FILE", help="Not used: no service is asked.")
    server = click.option("--server", metavar="URL", help="The service that this must be the enrolment at.")
    return server(ca(command))


def check_name(name: str) -> None:
    """Unusable for what cannot be the name of an agent or a sealed key."""
    if NAME.fullmatch(name) is None:
        raise failures.Unusable(f"{name!r} is no name; it has letters a to z, digits and -, at most 63")


def server_of(url: str | None, ca: Path | None, kept: State) -> Server:
    """The service that was named, else the one of the enrolment; trusted by this CA, else by the kept one."""
    membership = kept.membership()
    named = url or (membership.server if membership else None)
    if named is None:
        raise failures.Unusable("which service? name it with --server URL, as its external_url says")
    return Server(named, ca or kept.ca())


@contextmanager
def reported(kept: State | None = None, *, agent: str | None = None) -> Iterator[None]:
    """A refusal is the problem as JSON on stderr and status 1; no answer is status 3, a wrong name 2. With
    `kept` it is remembered how an attestation for this agent was refused."""
    try:
        yield
    except Refusal as refusal:
        if kept is not None:
            kept.keep_last(outcome("refused", refusal.problem, agent))
        click.echo(json.dumps(dict(refusal.problem), separators=(", ", ": ")), err=True)
        raise SystemExit(1) from None
    except Unreachable as error:
        raise failures.Unreachable(str(error)) from None
    except NotEnrolled as error:
        raise failures.Failure(str(error)) from None
    except Misconfigured as error:
        raise failures.Unusable(str(error)) from None


def outcome(verdict: str, told: Mapping[str, Any], agent: str | None) -> dict[str, Any]:
    """How an attestation ended, and for which agent."""
    members = ("code", "detail", "findings", "request_id", "policy")
    return {
        "time": rfc3339(now_ms()),
        "verdict": verdict,
        "agent": agent,
        **{name: told[name] for name in members if name in told},
    }


def check_server(named: str | None, membership: Membership | None) -> None:
    if named is not None and membership is not None and named != membership.server:
        raise failures.Failure(
            f"this machine is enrolled at {membership.server}, not at {named}; name that one's --state"
        )
