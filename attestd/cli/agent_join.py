"""How does an operator bring a new machine to its identity, with one command?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from attestd.agent.doctor.checks import JOINING, checks
from attestd.agent.errors import Refusal, plain
from attestd.agent.machine import opened
from attestd.agent.pin import authority, read_authorities
from attestd.agent.running.home import Home
from attestd.agent.running.join import Joined, check_unbound, join, named
from attestd.agent.settings import Settings
from attestd.agent.state import State
from attestd.agent.transport import Server
from attestd.agent.trouble import trouble_of
from attestd.cli import failures
from attestd.cli.agent_doctor import line_of
from attestd.cli.agent_options import check_name, reported
from attestd.cli.agent_settings import settings_from, settings_options
from attestd.cli.agent_status import reasons
from attestd.clock import now_ms
from tpm.errors import DeviceError

TPM_SECONDS = 3.0
"""For whoever is at it; the checks wait for longer, and say who it is."""


@click.command("join")
@click.argument("url", metavar="URL")
@settings_options
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="Show this agent's identity too.")
@click.option("--wait/--no-wait", default=True, help="Whether to wait until an operator admits this machine.")
def command(url: str, agents: tuple[str, ...], wait: bool, server: str | None, **given: Any) -> None:
    """Make this machine a device of the service at URL and see it accepted. Harmless to do again.

    What is trusted of the server, --ca or --root-sha256, is kept for the agent.
    """
    if server not in (None, url):
        raise failures.Unusable(f"{url} and --server {server} are two services; name one")
    named_ca: Path | None = given["ca"]
    settings = _settings(url, agents, given)
    state = State(settings.state)
    with reported():
        _tidy(settings, state)
        check_unbound(state, url)
    _check(settings)
    with reported():
        _keep_trust(url, state, settings, ca=named_ca)
        home = Home(settings.tpm, state, lambda where: Server(where, settings.ca or state.ca()))
        try:
            joined = join(home, settings, clock=now_ms, sleep=time.sleep, say=_say, wait=wait)
        except Refusal as refusal:
            if refusal.code == "device_pending":
                _tell_pending(state)
                return
            raise failures.Failure("\n".join(_refused(refusal, state))) from None
    for line in _told(joined):
        click.echo(line)
    if joined.withheld:
        raise SystemExit(1)


def _settings(url: str, agents: tuple[str, ...], given: dict[str, Any]) -> Settings:
    """The settings with what this command says instead. Unusable for what cannot be meant."""
    settings = settings_from(server=url, **given)
    for agent in agents:
        check_name(agent)
    known = {each.agent for each in settings.workloads}
    asked = tuple(named(agent) for agent in dict.fromkeys(agents) if agent not in known)
    return replace(settings, workloads=(*settings.workloads, *asked))


def _tidy(settings: Settings, state: State) -> None:
    """After a join or an agent whose power went. A TPM that cannot be had is told of by the checks."""
    if state.mend():
        _say(f"the enrolment in {state.directory} could not be read and is made anew")
    state.sweep(now=now_ms())
    if state.directory.exists():
        with suppress(DeviceError), opened(settings.tpm, state.directory, patience=TPM_SECONDS):
            pass  # What somebody left who died at it is flushed on entering.


def _check(settings: Settings) -> None:
    """Looks at what an identity rests on and shows what is not as it should be. Failure where something of it
    is missing, Unreachable where that is the service alone."""
    found = []
    for check in checks(settings, now=now_ms, groups=JOINING):
        found.append(check)
        if check.verdict != "ok":
            _say(line_of(check))
    good = [check.name for check in found if check.verdict == "ok"]
    _say(f"ok    {len(good)} of {len(found)} checks: {', '.join(good)}")
    failed = [check.name for check in found if check.verdict == "fail"]
    if failed:
        kind = failures.Unreachable if failed == ["server"] else failures.Failure
        raise kind(f"not joined: mend what FAILs ({', '.join(failed)}) and do it again")


def _keep_trust(url: str, state: State, settings: Settings, *, ca: Path | None) -> None:
    """What the operator named is the agent's from now on. Misconfigured or Unreachable."""
    if ca is not None:
        state.keep_ca(read_authorities(ca))
    else:
        authority(url, state, ca=settings.ca, root_sha256=settings.root_sha256)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _tell_pending(state: State) -> None:
    """Without waiting: the agent, or this command again, goes on from here."""
    membership, _ = state.enrolment()
    click.echo(f"pending {membership.device_id}")
    click.echo(f"an operator admits it: attestd device approve {membership.device_id}", err=True)


def _refused(refusal: Refusal, state: State) -> Iterator[str]:
    trouble = trouble_of(refusal)
    membership = state.membership()
    yield f"this machine is not accepted: {trouble.code}: {trouble.detail}"
    yield from reasons({"findings": trouble.findings})
    if membership is not None:
        yield f"              its operator: attestd device why {membership.device_id}"


def _told(joined: Joined) -> Iterator[str]:
    policy = joined.policy
    yield f"device        {joined.membership.device_id}"
    yield f"server        {joined.membership.server}"
    yield f"accepted by   {plain(policy.get('name'))}@{plain(policy.get('version'))}"
    for agent, spiffe_id in joined.identities.items():
        yield f"{plain(agent):<13} {plain(spiffe_id)}"
    for agent, why in joined.withheld.items():
        yield f"{plain(agent):<13} has no identity: {plain(why)}"
    yield "next          systemctl enable --now attestd-agent.socket attestd-agent.service"
    yield "              or, in the foreground: attestd agent run"
