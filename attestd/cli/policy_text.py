"""What does a policy demand and give, in words and for programs?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from attestd.clock import rfc3339
from attestd.policy.boot import told
from attestd.policy.components import Component
from attestd.policy.document import Policy
from attestd.policy.explain import MEASURES
from attestd.policy.grants import Grant
from attestd.policy.ima_rules import ImaRules
from attestd.policy.registers import written


def summary(policy: Policy) -> list[str]:
    """One indented line for each thing that the policy says."""
    lines = [_covers(policy)]
    for register, values in policy.pcrs.items():
        about = f" ({MEASURES[register]})" if register in MEASURES else ""
        choice = "one value" if len(values) == 1 else f"one of {len(values)} values"
        lines.append(f"  demands   {policy.bank} register {register}{about}: {choice}")
    if policy.allow_unmeasured:
        registers = ", ".join(map(str, sorted(policy.allow_unmeasured)))
        lines.append(f"  allows    registers that nothing was measured into: {registers}")
    lines += _of_logs(policy)
    if policy.on_reset == "reject":
        lines.append("  demands   a new boot id for every TPM reset")
    if policy.clock.on_resume == "reject":
        lines.append("  demands   that the machine was not suspended")
    if policy.clock.on_unsafe == "reject":
        lines.append("  demands   a TPM clock that is safe")
    if policy.clock.on_firmware_change == "reject":
        lines.append("  demands   the TPM firmware that was there before")
    for grant in policy.grants:
        key = "a key born in the TPM" if grant.key == "tpm" else "any key"
        lines.append(f"  grants    {grant.agent}: {', '.join(grant.formats)} for {grant.ttl} s, {key}")
        lines.append(f"            as {grant.spiffe_id.text}")
        lines += [f"            {right}" for right in _rights(grant)]
    for seal in policy.seals:
        lines.append(f"  seals     {seal.name}: {seal.kind} to registers {', '.join(map(str, seal.pcrs))}")
    return [*lines, f"  tells     a refused device: {policy.disclose}"]


def demands(policy: Policy) -> dict[str, Any]:
    """The whole policy as JSON. Digests as the document writes them, times to live in seconds."""
    match = policy.match
    return {
        "name": policy.name,
        "digest": policy.digest,
        "description": policy.description,
        "bank": policy.bank,
        "disclose": policy.disclose,
        "match": {
            "labels": {key: list(values) for key, values in match.labels.items()},
            "manufacturers": list(match.manufacturers),
        },
        "pcrs": {
            str(register): [written(policy.bank, value) for value in values]
            for register, values in policy.pcrs.items()
        },
        "allow_unmeasured": sorted(policy.allow_unmeasured),
        "boot": None if policy.boot is None else dict(told(policy.boot)),
        "components": [_component(one, policy.bank) for one in policy.components],
        "actions": {
            str(register): sorted(written(policy.bank, one) for one in digests)
            for register, digests in policy.actions.items()
        },
        "ima": None if policy.ima is None else _ima(policy.ima),
        "clock": asdict(policy.clock),
        "needs": list(policy.needed()),
        "grants": [_granted(grant) for grant in policy.grants],
        "seals": [{"name": seal.name, "kind": seal.kind, "pcrs": list(seal.pcrs)} for seal in policy.seals],
    }


def _of_logs(policy: Policy) -> list[str]:
    """What is demanded of what the logs tell, a line each."""
    lines, boot, ima = [], policy.boot, policy.ima
    if boot is not None:
        facts = {
            "Secure Boot on": boot.secure_boot,
            f"images vouched for by one of {len(boot.authorities)} authorities": boot.authorities,
            "a dbx as new as named": boot.dbx_revision or boot.dbx_includes,
            "a kernel command line as named": boot.judges_command_line,
            f"boot phases {' or '.join(boot.phases)}": boot.phases,
        }
        lines.append(f"  demands   of the event log that it is {boot.event_log}")
        lines += [f"  demands   {fact}" for fact, wanted in facts.items() if wanted]
    for component in policy.components:
        registers = ", ".join(map(str, component.pcrs))
        variants = " or ".join(variant.name for variant in component.variants)
        lines.append(f"  demands   {component.name} {variants}, and in registers {registers} nothing unknown")
    if ima is not None:
        must = "demands" if ima.required else "judges"
        listed = f"{len(ima.allowed.digests)} digests, {len(ima.keys.by_id)} signing keys"
        lines.append(f"  {must:<8}  IMA's list of what ran: {listed}")
    return lines


def _component(component: Component, bank: str) -> dict[str, Any]:
    return {
        "name": component.name,
        "pcrs": list(component.pcrs),
        "variants": [
            {
                "name": variant.name,
                "digests": [written(bank, digest) for digest in variant.digests],
                "until": None if variant.until is None else rfc3339(variant.until),
            }
            for variant in component.variants
        ],
    }


def _ima(rules: ImaRules) -> dict[str, Any]:
    return {
        "required": rules.required,
        "files": list(rules.files),
        "digests": len(rules.allowed.digests),
        "keys": len(rules.keys.by_id),
        "exclude": [prefix.decode() for prefix in rules.exclude],
        "match": rules.match,
        "violations": rules.violations,
    }


def _granted(grant: Grant) -> dict[str, Any]:
    delegation = grant.delegation
    return {
        "agent": grant.agent,
        "spiffe_id": grant.spiffe_id.text,
        "formats": list(grant.formats),
        "ttl": grant.ttl,
        "key": grant.key,
        "audiences": list(grant.audiences),
        "scopes": list(grant.scopes),
        "authorization_details": list(grant.authorization_details),
        "bearer": grant.bearer,
        "max_posture_age": grant.max_posture_age,
        "delegation": None
        if delegation is None
        else {"issuers": list(delegation.issuers), "depth": delegation.depth},
    }


def _rights(grant: Grant) -> list[str]:
    """What the agent may ask for as an OAuth client, a line each."""
    lines = []
    if grant.audiences:
        lines.append(f"for {' or '.join(grant.audiences)}")
    if grant.scopes:
        lines.append(f"tokens with {', '.join(grant.scopes)}")
    if grant.authorization_details:
        lines.append(f"tokens with details of type {', '.join(grant.authorization_details)}")
    if grant.bearer:
        lines.append("tokens that are bound to no key: whoever sees one can use it")
    if grant.max_posture_age is not None:
        lines.append(f"tokens while it attested within {grant.max_posture_age} s")
    if grant.delegation is not None:
        issuers = " or ".join(grant.delegation.issuers)
        lines.append(f"may act for users of {issuers}, through at most {grant.delegation.depth} agents")
    return lines


def _covers(policy: Policy) -> str:
    match = policy.match
    conditions = [f"{key} = {' or '.join(values)}" for key, values in match.labels.items()]
    if match.manufacturers:
        conditions.append(f"a TPM of {' or '.join(match.manufacturers)}")
    return f"  covers    {' and '.join(conditions) or 'every device'}"
