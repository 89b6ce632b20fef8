"""What does one round bring, for all workloads of this machine together?

The bundle first, then one attestation that asks for everything. A workload that the policy gives nothing is
left out and the others are asked for again. All is read before anything of it is held.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509

from attestd.agent.attest import Received, Wanted
from attestd.agent.delivery.deliver import seal_name
from attestd.agent.errors import Refusal, Unreachable, plain
from attestd.agent.holdings import Bundle, Held
from attestd.agent.machine import Machine
from attestd.agent.running.bundle import claims_of, fetch_bundle
from attestd.agent.running.received import CLOCK_MS, LONGEST_MS, OffClock, read_part
from attestd.agent.settings import Workload
from attestd.clock import parse_rfc3339

SHORTEST_LIFE_MS = 20_000
CLOCK_TOLD_MS = 60_000
"""Less is the way there and back, and what the service dates back."""
OnBundle = Callable[[Bundle, int | None], None]
"""The second is how often to look at it, in seconds."""
_POINTER = re.compile(r"/(credentials|sealed_keys)/([0-9]{1,3})(?:/.*)?")


@dataclass(frozen=True, slots=True)
class Renewed:
    """An accepted round. `withheld`: agents that the policy gives nothing, and why; `unsealed`: agents whose
    sealed keys it does not give. `until` (milliseconds): when the first of it ends. `hint` is how often to
    look at the bundle, in seconds. `ahead` is by how many seconds this machine's clock is ahead of the
    service's, where that takes much of the credentials' life; else 0."""

    policy: Mapping[str, Any]
    held: Mapping[str, Held]
    withheld: Mapping[str, str]
    unsealed: Mapping[str, str]
    bundle: Bundle
    hint: int | None
    until: int
    ahead: int


def unheard(bundle: Bundle, hint: int | None) -> None:
    """For who has no use for a bundle without a round."""


def renew(
    machine: Machine,
    workloads: Sequence[Workload],
    *,
    clock: Callable[[], int],
    on_bundle: OnBundle = unheard,
) -> Renewed:
    """One round. Refusal, Unreachable (OffClock where this machine's clock is the trouble), DeviceError or
    Misconfigured. `on_bundle` is told each bundle that was read, whatever becomes of the round."""
    bundle, hint = _bundle(machine, on_bundle)
    asked = {workload.agent: (workload, wanted_of(workload)) for workload in workloads}
    withheld: dict[str, str] = {}
    unsealed: dict[str, str] = {}
    while True:
        try:
            received = machine.attest(*(wanted for _, wanted in asked.values()))
            break
        except Refusal as refusal:
            # Each turn takes something away, so there is a last one.
            _leave_out(refusal, asked, withheld, unsealed)
    now = clock()
    try:
        held = _held(received, asked, bundle, now=now)
    except OffClock:
        raise
    except Unreachable:
        # A key may have been put to use since: the bundle is read once more before anybody is blamed.
        bundle, hint = _bundle(machine, on_bundle)
        held = _held(received, asked, bundle, now=now)
    until = _until(received, held.values(), now=now)
    ahead = _ahead(held.values(), now=now)
    return Renewed(_policy(received.answer), held, withheld, unsealed, bundle, hint, until, ahead)


def _bundle(machine: Machine, on_bundle: OnBundle) -> tuple[Bundle, int | None]:
    bundle, hint = fetch_bundle(machine.server, machine.trust_domain)
    on_bundle(bundle, hint)
    return bundle, hint


def wanted_of(workload: Workload) -> Wanted:
    """What a regular round asks for. Bearer tokens and client attestations only where they are delivered as
    files; sealed keys only while they are not there."""
    formats = tuple(form for form in workload.formats if workload.files or form in ("x509-svid", "wit-svid"))
    folder = workload.files
    missing = tuple(seal for seal in workload.seals if folder and not (folder / seal_name(seal)).exists())
    audiences = workload.audiences if "jwt-svid" in formats else ()
    return Wanted(workload.agent, formats, workload.key, audiences, missing)


def _leave_out(
    refusal: Refusal,
    asked: dict[str, tuple[Workload, Wanted]],
    withheld: dict[str, str],
    unsealed: dict[str, str],
) -> None:
    """Take what the refusal points at out of `asked`; raises it again if that is nothing."""
    named = _named(refusal, [wanted for _, wanted in asked.values()])
    if named is None:
        raise refusal
    kind, agent = named
    why = plain(refusal.problem.get("detail") or refusal.code)
    workload, wanted = asked[agent]
    if kind == "sealed_keys":
        unsealed[agent] = why
        asked[agent] = (workload, replace(wanted, seals=()))
    else:
        withheld[agent] = why
        del asked[agent]


def _named(refusal: Refusal, wanted: Sequence[Wanted]) -> tuple[str, str] | None:
    """Which kind of thing of which agent the service does not give."""
    pointer = refusal.problem.get("pointer")
    found = _POINTER.fullmatch(pointer) if isinstance(pointer, str) else None
    if refusal.code != "not_entitled" or found is None:
        return None
    kind, place = found[1], int(found[2])
    owners = [each.agent for each in wanted for _ in (each.seals if kind == "sealed_keys" else each.formats)]
    agent = owners[place] if place < len(owners) else None
    return None if agent is None else (kind, agent)


def _held(
    received: Received, asked: Mapping[str, tuple[Workload, Wanted]], bundle: Bundle, *, now: int
) -> dict[str, Held]:
    result = received.answer.get("result")
    parts = zip(asked.items(), received.parts, strict=True)
    return {
        agent: read_part(part, workload, bundle, result=result, now=now)
        for (agent, (workload, _)), part in parts
    }


def _policy(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the machine was accepted by, for people to read."""
    policy = answer.get("policy")
    told = policy if isinstance(policy, dict) else {}
    version = told.get("version")
    return {
        "name": plain(told.get("name")),
        "version": version if type(version) is int and 0 <= version < 2**53 else None,
        "digest": plain(told.get("digest")),
    }


def _until(received: Received, held: Iterable[Held], *, now: int) -> int:
    """When the first credential ends, also of those that are only delivered; without any, when the posture
    does, as far as `renew_after` tells."""
    ends = [svid.expires_at for each in held for svid in (each.x509, each.wit, each.jwt) if svid is not None]
    try:
        told = [parse_rfc3339(each["expires_at"]) for part in received.parts for each in part.credentials]
        # What says itself when it ends was believed already; what the answer adds must make sense too.
        ends += [_bounded(end, now) for end in told]
        return min(ends) if ends else _bounded(2 * parse_rfc3339(received.answer["renew_after"]) - now, now)
    except (LookupError, TypeError, ValueError):
        raise Unreachable("the server's answer does not say when to renew; is it attestd?") from None


def _bounded(end: int, now: int) -> int:
    return now + min(max(end - now, SHORTEST_LIFE_MS), LONGEST_MS)


def _ahead(held: Iterable[Held], *, now: int) -> int:
    """Seconds. What was given this moment became valid a little before by the service's clock."""
    for each in held:
        if each.x509 is not None:
            leaf = x509.load_der_x509_certificate(each.x509.chain[0])
            begins = int(leaf.not_valid_before_utc.timestamp() * 1000)
        elif (token := each.wit or each.jwt) is not None:
            begins = claims_of(token.text).get("iat", now // 1000) * 1000
        else:
            continue
        ends = min(svid.expires_at for svid in (each.x509, each.wit, each.jwt) if svid is not None)
        if now - begins > max(CLOCK_TOLD_MS, min((ends - begins) // 2, CLOCK_MS)):
            return (now - begins) // 1000
    return 0
