"""Is this device entitled to what it asks for, and under which SPIFFE ID?"""

from __future__ import annotations

from collections.abc import Mapping

from attestd.policy.document import Policy
from attestd.policy.grants import Grant, Seal
from attestd.policy.labels import SEGMENT
from attestd.policy.template import RESERVED, Placeholder
from attestd.spiffe import validate_workload_id
from tpm.errors import AttestationError


class NotEntitled(AttestationError):
    """The policy does not give this; `reason` is the audit word, `detail` says what would."""


def find_grant(policy: Policy, *, agent: str, credential_format: str) -> Grant:
    """The grant that gives this agent a credential of this format; at most one does."""
    for grant in policy.grants:
        if grant.agent == agent and credential_format in grant.formats:
            return grant
    raise NotEntitled("grant_missing", f"{policy.name} grants this agent no {credential_format}")


def find_seal(policy: Policy, *, name: str) -> Seal:
    """The sealed key of this name."""
    for seal in policy.seals:
        if seal.name == name:
            return seal
    raise NotEntitled("seal_missing", f"{policy.name} seals nothing under this name")


def spiffe_id(
    grant: Grant, *, trust_domain: str, device_id: str, name: str | None, labels: Mapping[str, str]
) -> str:
    """The ID of the grant's agent on this device; NotEntitled where a value is missing or unfit."""
    values = {"trust_domain": trust_domain, "agent": grant.agent, "device_id": device_id, "name": name}
    template = grant.spiffe_id
    segments = ["".join(_fill(piece, values, labels) for piece in segment) for segment in template.segments]
    filled = "/".join((f"spiffe://{trust_domain}", *segments))
    try:
        validate_workload_id(filled)
    except ValueError as error:
        raise NotEntitled(
            "id_invalid", f"the template gives the device no valid SPIFFE ID: {error}"
        ) from None
    # A label may not lead below the reserved path, whatever the template looks like.
    if segments[0] == RESERVED:
        raise NotEntitled("id_reserved", "the template leads below /spire/, which SPIFFE reserves")
    return filled


def _fill(piece: str | Placeholder, values: Mapping[str, str | None], labels: Mapping[str, str]) -> str:
    if isinstance(piece, str):
        return piece
    known_as = f"label {piece.label}" if piece.label else piece.name
    value = labels.get(piece.label) if piece.label else values[piece.name]
    if value is None:
        raise NotEntitled(
            "placeholder_missing", f"the SPIFFE ID needs the device's {known_as}, and it has none"
        )
    if piece.name == "trust_domain":  # validated whole with the configuration
        return value
    if piece.name != "device_id" and SEGMENT.fullmatch(value) is None:
        raise NotEntitled(
            "placeholder_unfit", f"the device's {known_as} cannot stand in a SPIFFE ID; rename it"
        )
    return value
