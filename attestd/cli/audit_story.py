"""Which agent, on whose behalf, under which posture and policy? The steps of a trace as a short story."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attestd.store.canonical import canonical_json

Step = Mapping[str, Any]

_DEPTH = {
    "enrolled": 0,
    "attested": 1,
    "credential": 2,
    "sealed_key": 2,
    "token": 3,
    "revoked": 3,
    "called": 4,
}
_STEP = "  "
_SHORT = 12


def story(steps: Sequence[Step], wanted: str) -> Iterator[str]:
    """The lines, indented from the machine's enrolment to its tokens; the step that was asked for has a
    mark."""
    for step in steps:
        kind, indent = step["step"], _STEP * _DEPTH.get(step["step"], 0)
        mark = "→ " if wanted in (step.get(name) for name in _MARKED.get(kind, ())) else ""
        yield f"{indent}{mark}{step['time']}  {_printable(_headline(step))}"
        for name, value in _lines(step):
            yield f"{indent}{_STEP * 2}{name:<12} {_printable(value)}"


_MARKED = {"attested": ("attestation_id",), "credential": ("credential_id",), "token": ("token_id",)}


def _headline(step: Step) -> str:
    match step["step"]:
        case "enrolled":
            return f"{_machine(step)} enrolled: {step.get('state')}, {step.get('assurance')}"
        case "attested":
            return f"{_machine(step)} attested: {_decision(step)}"
        case "credential":
            return f"{step.get('format')} {step.get('credential_id')}"
        case "sealed_key":
            return f"sealed key {step.get('sealed_key')}"
        case "token" if step["decision"] == "accepted":
            return f"access token {step.get('token_id')}"
        case "called":
            times = "once" if step["count"] == 1 else f"{step['count']} times until {step['until']}"
            return f"called {step['resource']}, {times}"
        case "revoked":
            return f"ended {step.get('revoked')} by its client, and what was made of it"
        case "admin":
            return f"{_machine(step)}: {step.get('verb')} by {step.get('by')}"
        case event:
            return f"{event}: {_decision(step)}"


def _lines(step: Step) -> Iterator[tuple[str, str]]:
    match step["step"]:
        case "attested":
            yield from _posture(step)
        case "credential":
            yield "agent", str(step.get("spiffe_id"))
            yield from _life(step)
        case "token" if step["decision"] == "accepted":
            yield from _call(step)
            yield from _life(step)
    if step["request_id"] is not None:
        yield "request", step["request_id"]


def _posture(step: Step) -> Iterator[tuple[str, str]]:
    if step["policy"] is not None:
        yield "policy", f"{step['policy']}  {step['policy_digest'] or ''}".rstrip()
    if step["evidence_sha256"] is not None:
        yield "evidence", f"sha256:{step['evidence_sha256']}"
    if checks := step.get("checks"):
        yield "checked", ", ".join(checks)


def _call(step: Step) -> Iterator[tuple[str, str]]:
    """Which agent, on whose behalf, for what."""
    client, subject, issuer = step.get("client_id"), step.get("subject"), step.get("subject_issuer")
    yield "agent", str(client)
    behalf = "itself" if subject == client else f"{subject}" + ("" if issuer is None else f" of {issuer}")
    yield "on behalf of", behalf
    if earlier := list(_actors(step))[1:]:
        yield "passed on by", ", ".join(earlier)
    yield "for", f"{', '.join(step.get('audience') or ())}  {step.get('scope')}".rstrip()
    yield "posture", f"attestation {step.get('attestation_id')}, {step['policy']}"
    bound = step.get("confirmation") or {}
    yield "bound to", ", ".join(f"{kind} {value}" for kind, value in bound.items()) or "nothing"


def _actors(step: Step) -> Iterator[str]:
    """Who acted, the newest first."""
    actor = step.get("actors")
    while actor:
        yield str(actor.get("sub"))
        actor = actor.get("act")


def _life(step: Step) -> Iterator[tuple[str, str]]:
    if step.get("ended_at") is None:
        yield "until", str(step.get("expires_at"))
    else:
        yield "ended", f"{step['ended_at']} ({step['ended_because']})"


def _machine(step: Step) -> str:
    device, name = (step["device_id"] or "")[:_SHORT], step["device_name"]
    return device if name in (None, device) else f"{name} ({device})"


def _decision(step: Step) -> str:
    why = [word for word in (step["code"], step["cause"]) if word is not None]
    return f"{step['decision']}{': ' if why else ''}{', '.join(why)}"


def _printable(text: str) -> str:
    """As JSON escapes it: nothing that a stranger chose reaches a terminal as such."""
    return canonical_json(text)[1:-1]
