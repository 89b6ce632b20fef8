"""How does who may use the TPM get an access token without a running agent? It attests, here and now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attestd.agent.machine import Machine
from attestd.agent.state import State
from attestd.agent.token import Asked, attest_client, request_token
from attestd.cli import failures
from attestd.cli.agent_options import check_name, log_files, outcome, reported, server_of
from attestd.cli.agent_token_wish import Wish, show
from attestd.cli.output import progress
from attestd.clock import now_ms


def print_token(wish: Wish, given: Mapping[str, Any]) -> None:
    """`given` are the options that say which TPM, state, service and logs."""
    kept = State(given["state"])
    asked = Asked(_agent(wish, kept), wish.audience, wish.scopes, wish.subject_token)
    files = log_files(given)
    with reported(kept, agent=asked.agent):
        membership, _ = kept.enrolment()
        machine = Machine(given["tpm"], kept, server_of(given["server"], given["ca"], kept), files)
        with progress("Attesting"):
            attestation = attest_client(machine, asked.agent)
        kept.keep_last(outcome("accepted", {"policy": attestation.policy}, asked.agent))
        if membership.state != "active":
            kept.keep_membership(replace(membership, state="active"))
    with reported():
        token = request_token(machine.server, attestation, asked, now=now_ms())
        headers = {} if wish.proof is None else token.headers(*wish.proof, now=now_ms(), nonce=wish.nonce)
    show(token.told(), headers)


def _agent(wish: Wish, kept: State) -> str:
    agent = wish.agent or (kept.last() or {}).get("agent")
    if not isinstance(agent, str):
        raise failures.Unusable("which agent is the token for? name it with --agent NAME")
    check_name(agent)
    return agent
