"""Who is this machine, was it accepted, what does it hold, and when is the next try?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from attestd.agent.errors import plain
from attestd.agent.lock import running_instance
from attestd.agent.logs import boot_id
from attestd.agent.machine import opened
from attestd.agent.running.standing import as_of, nothing_told
from attestd.agent.state import State
from attestd.agent.trouble import sentence
from attestd.cli.agent_options import check_server, enrolled_options, reported, state_option, tpm_option
from attestd.cli.failures import Failure
from attestd.cli.output import json_option, print_object
from attestd.clock import now_ms
from tpm.device.keys import attestation_public
from tpm.errors import DeviceError

LOOK_SECONDS = 0.2
"""Between two looks while waiting."""
TPM_SECONDS = 3.0
_INDENT = " " * 14
_VALUES_SHOWN = 4


@click.command("status")
@enrolled_options
@state_option
@tpm_option
@click.option(
    "--wait",
    is_flag=False,
    flag_value="inf",
    type=float,
    metavar="[SECONDS]",
    help="Say nothing; end when the running agent has its identity, or with status 1 after so long.",
)
@json_option
def command(server: str | None, state: Path, tpm: str, wait: float | None, as_json: bool) -> None:
    """Say who this machine is, whether it was accepted, what it holds, and what happens next."""
    kept = State(state)
    if wait is not None:
        _await(kept, wait)
        return
    with reported():
        told = _told(kept, server, tpm)
    if as_json:
        print_object(told)
    else:
        for line in _lines(told):
            click.echo(line)
    if told["agent"] is not None and not told["agent"]["identity"]:
        raise SystemExit(1)


def _told(kept: State, server: str | None, tpm: str) -> dict[str, Any]:
    """NotEnrolled where no agent runs either, which would say why."""
    agent, membership, recipe = _agent(kept), kept.membership(), kept.recipe()
    if agent is None:
        kept.enrolment()
    check_server(server, membership)
    return {
        "server": membership.server if membership else agent and agent["server"],
        "device_id": membership.device_id if membership else None,
        "state": membership.state if membership else "not enrolled",
        "ak_name": None if recipe is None else attestation_public(recipe).name.hex(),
        **_tpm(tpm, kept.directory),
        "last_attestation": kept.last(),
        "agent": agent,
    }


def _await(kept: State, seconds: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Until the agent of this boot has its identity. Failure when that takes too long."""
    end = time.monotonic() + seconds
    while not (_agent(kept) or {}).get("identity"):
        if time.monotonic() >= end:
            raise Failure(f"no identity within {seconds:g} seconds; see `attestd agent status`")
        sleep(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))


def _agent(kept: State) -> dict[str, Any] | None:
    """What the running agent tells; None while none runs. What an earlier one told counts for nothing."""
    runs, told = running_instance(kept.directory), kept.standing()
    if runs is None:
        return None
    if told is None or told.get("instance") != runs.instance or told.get("boot_id") != boot_id():
        number = runs.who.removeprefix("pid ")
        return nothing_told(int(number) if number.isdecimal() else 0)
    return as_of(told, now_ms())


def _tpm(tcti: str, state: Path) -> dict[str, Any]:
    """Maker, firmware and banks; what a running agent is at for long is not waited for."""
    try:
        with opened(tcti, state, patience=TPM_SECONDS) as device:
            properties, banks = device.properties(), device.banks()
    except DeviceError as error:
        if error.reason != "tpm_in_use":
            raise
        return {"tpm": None, "banks": []}
    firmware = f"{properties.firmware_version:016x}"
    return {"tpm": {"manufacturer": properties.manufacturer, "firmware": firmware}, "banks": list(banks)}


# --- for people -----------------------------------------------------------------------------------


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    tpm = told["tpm"]
    yield f"device        {told['device_id'] or 'none yet'}"
    yield f"server        {plain(told['server'])} ({plain(told['state'])})"
    if tpm is None:
        yield "tpm           in use by the agent"
    else:
        banks = ", ".join(told["banks"])
        yield f"tpm           {plain(tpm['manufacturer'])}, firmware {tpm['firmware']}, {banks}"
    agent = told["agent"]
    if agent is None:
        yield "agent         does not run: systemctl start attestd-agent"
        yield from _last(told["last_attestation"])
    else:
        yield f"agent         runs, pid {agent['pid']}"
        yield from _standing(agent)


def _last(last: Mapping[str, Any] | None) -> Iterator[str]:
    if last is None:
        yield "posture       never attested"
        return
    policy = _policy(last.get("policy"))
    yield f"posture       {plain(last.get('verdict'))} at {plain(last.get('time'))}{policy}"
    yield from reasons(last)


def _standing(agent: Mapping[str, Any]) -> Iterator[str]:
    posture = agent["posture"]
    since = f" since {posture['since']}" if posture["since"] else ""
    yield f"posture       {plain(posture['verdict'])}{since}{_policy(posture['policy'])}"
    if posture["code"] is not None:
        yield from reasons(posture)
    for each in agent["credentials"]:
        old = ", an old one" if agent["old_credentials"] else ""
        yield f"holds         {plain(each['spiffe_id'])}"
        yield f"{_INDENT}{each['format']}, until {each['expires_at']}{old}"
    for name, why in agent["withheld"].items():
        yield f"without       {plain(name)}: {plain(why)}"
    for name, why in agent["notes"].items():
        yield f"but           {plain(name)}: {plain(why)}"
    yield f"next try      {agent['next_try']['at'] or 'none'} ({plain(agent['next_try']['why'])})"


def reasons(told: Mapping[str, Any]) -> Iterator[str]:
    """The code, the sentence, and each finding with what was expected and found."""
    if told.get("code") is not None:
        yield f"{_INDENT}{plain(told['code'])}: {plain(told.get('detail'))}"
    for finding in told.get("findings") or []:
        yield f"{_INDENT}{sentence(finding)}"


def _policy(policy: object) -> str:
    if not isinstance(policy, dict):
        return ""
    return f", policy {plain(policy.get('name'))}@{plain(policy.get('version'))}"
