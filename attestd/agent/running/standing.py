"""How does this machine stand: who is it, was it accepted, what does it hold, and what happens next?

Told by the running agent in its state directory, for `agent status` and whoever watches machines. Names and
times only: no token, no key.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attestd.agent.holdings import NOTHING, Held, Holdings
from attestd.agent.settings import Workload
from attestd.agent.trouble import Regime, Trouble
from attestd.clock import parse_rfc3339, rfc3339


@dataclass(frozen=True, slots=True)
class Standing:
    """At `time`. `instance` tells this start of the agent from all others. `trouble` is what the last try
    failed by (None: it was accepted, by `policy`), `since` when that began, `tries` how many failed in a row;
    `notes` says by agent what else is not as it was set: sealed keys that are not given, files that cannot be
    written; and of the clock. Milliseconds."""

    pid: int
    instance: str
    boot_id: str | None
    time: int
    server: str | None
    device_id: str | None
    trouble: Trouble | None
    policy: Mapping[str, Any] | None
    since: int
    tries: int
    holdings: Holdings
    notes: Mapping[str, str]
    next_at: int

    @property
    def identity(self) -> bool:
        """Is there anything that this machine can show: a credential, or, where none is asked for in advance,
        an accepted attestation?"""
        if any(True for _ in credentials(self.holdings.held.values(), self.time)):
            return True
        nothing_refused = not self.holdings.withheld or bool(self.holdings.held)
        return self.trouble is None and self.policy is not None and nothing_refused

    def told(self) -> dict[str, Any]:
        """The members of `standing.json`."""
        held = self.holdings.held
        return {
            "pid": self.pid,
            "instance": self.instance,
            "boot_id": self.boot_id,
            "time": rfc3339(self.time),
            "server": self.server,
            "device_id": self.device_id,
            "identity": self.identity,
            "posture": self._posture(),
            "credentials": list(credentials(held.values(), self.time)),
            "withheld": dict(self.holdings.withheld),
            "notes": dict(self.notes),
            "old_credentials": self.trouble is not None and bool(say_expiry(held.values(), self.time)),
            "next_try": self._next(),
        }

    def _posture(self) -> dict[str, Any]:
        trouble = self.trouble
        told: dict[str, Any] = {
            "verdict": "accepted" if self.policy is not None else "unknown",
            "policy": None if self.policy is None else dict(self.policy),
            "code": None,
            "detail": None,
            "findings": [],
            "since": rfc3339(self.since),
        }
        if trouble is not None:
            findings = [dict(each) for each in trouble.findings]
            told |= {"verdict": str(trouble.regime), "code": trouble.code, "detail": trouble.detail}
            told |= {"findings": findings}
        return told

    def _next(self) -> dict[str, str | None]:
        if self.trouble is None:
            why = "renewal" if self.policy is not None else "first attestation"
        elif self.trouble.regime is Regime.UNENROLLED:
            return {"at": None, "why": "waits for `attestd agent join`"}
        else:
            why = f"{self.trouble.code}, {self.tries} in a row"
        return {"at": rfc3339(self.next_at), "why": why}


def nothing_told(pid: int) -> dict[str, Any]:
    """The same members for an agent that runs and has told nothing: its first try has not ended."""
    nothing = Standing(pid, "", None, 0, None, None, None, None, 0, 0, NOTHING, {}, 0)
    told = nothing.told() | {"time": None, "next_try": {"at": None, "why": "first attestation"}}
    told["posture"]["since"] = None
    return told


def as_of(told: Mapping[str, Any], now: int) -> dict[str, Any]:
    """What was told, without what has ended since: who told it may stand still (milliseconds)."""
    before = told["credentials"]
    live = [each for each in before if parse_rfc3339(each["expires_at"]) > now]
    ended = bool(before) and not live
    return {**told, "credentials": live, "identity": told["identity"] and not ended}


def credentials(held: Iterable[Held], now: int) -> Iterator[dict[str, str]]:
    """One entry for each credential that may still be used."""
    for each in held:
        live = each.at(now)
        for form, svid in ("x509-svid", live.x509), ("wit-svid", live.wit), ("jwt-svid", live.jwt):
            if svid is not None:
                yield {
                    "agent": each.workload.agent,
                    "format": form,
                    "spiffe_id": svid.spiffe_id,
                    "expires_at": rfc3339(svid.expires_at),
                }


def say_expiry(held: Iterable[Held], now: int) -> str:
    """What is still in use, for the end of a line about a failed try."""
    ends = [each["expires_at"] for each in credentials(held, now)]
    return f"; the old credentials are used until {min(ends)}" if ends else ""


def last_outcome(
    trouble: Trouble | None, policy: Mapping[str, Any] | None, workloads: tuple[Workload, ...], *, now: int
) -> dict[str, Any]:
    """How the last attestation ended, as `agent attest` keeps it too."""
    agent = workloads[0].agent if len(workloads) == 1 else None
    told: dict[str, Any] = {"time": rfc3339(now), "verdict": "accepted", "agent": agent}
    if trouble is None:
        return told | {"policy": dict(policy or {})}
    told |= {"verdict": "refused", "code": trouble.code, "detail": trouble.detail}
    return told | ({"findings": [dict(each) for each in trouble.findings]} if trouble.findings else {})
