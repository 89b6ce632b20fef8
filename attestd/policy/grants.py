"""Which credentials does the policy grant, and which secrets does it seal?"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from attestd.policy.fields import Fields, matching, one_of, refusal
from attestd.policy.labels import AGENT
from attestd.policy.rights import (
    Delegation,
    load_audiences,
    load_authorization_details,
    load_bearer,
    load_delegation,
    load_duration,
    load_max_posture_age,
    load_scopes,
)
from attestd.policy.template import DEFAULT, Template, parse_template
from tpm.errors import PolicyError

FORMATS = ("x509-svid", "wit-svid", "jwt-svid", "client-attestation")
MAX_TTL = 24 * 60 * 60
DEFAULT_TTL = "10m"

_GRANT = (
    "agent",
    "spiffe_id",
    "formats",
    "ttl",
    "key",
    "audiences",
    "scopes",
    "authorization_details",
    "bearer",
    "max_posture_age",
    "delegation",
)
_SEAL = ("name", "kind", "pcrs")
_SEAL_LATER = {"authorized": "signed PCR policies that survive updates"}
_KINDS = ("ec-p256", "rsa-2048", "hmac-sha256")
_SECRET = re.compile(r"secret-([1-9][0-9]{1,2})")
_SECRET_SIZES = range(16, 129)


@dataclass(frozen=True, slots=True)
class Grant:
    """One agent's credentials, and what it may ask for with one of them as an OAuth client.

    `ttl` and `max_posture_age` are in seconds; `key` is "tpm" (born in the TPM) or "any"; audiences, scopes
    and types of authorization details are compared as whole strings. What a credential opens is said by the
    grant that gives its format, and by no other of the same agent.
    """

    agent: str
    spiffe_id: Template
    formats: tuple[str, ...]
    ttl: int
    key: str
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]
    authorization_details: tuple[str, ...]
    bearer: bool
    max_posture_age: int | None
    delegation: Delegation | None


@dataclass(frozen=True, slots=True)
class Seal:
    """A secret or key that opens only while these registers hold what was quoted.

    `kind` is spelled as the sealing library does; the registers are in ascending order.
    """

    name: str
    kind: str
    pcrs: tuple[int, ...]


def load_grants(document: Fields) -> tuple[Grant, ...]:
    """[[grant]]: several may name one agent if their formats are disjoint and the SPIFFE ID is the same."""
    if not document.has("grant"):
        return ()
    grants = tuple(_grant(value, path) for path, value in document.items("grant"))
    by_agent: dict[str, list[Grant]] = {}
    for index, grant in enumerate(grants):
        for earlier in by_agent.setdefault(grant.agent, []):
            _refuse_conflict(earlier, grant, f"grant[{index}]")
        by_agent[grant.agent].append(grant)
    return grants


def load_seals(document: Fields) -> tuple[Seal, ...]:
    """[[seal]]: each name once."""
    if not document.has("seal"):
        return ()
    seals = tuple(_seal(value, path) for path, value in document.items("seal"))
    names: set[str] = set()
    for index, seal in enumerate(seals):
        if seal.name in names:
            raise refusal(
                "value_twice", f"seal[{index}].name", expected="a new name", found=seal.name, step="rename it"
            )
        names.add(seal.name)
    return seals


def _grant(value: object, path: str) -> Grant:
    fields = Fields(value, path, known=_GRANT)
    formats = _formats(fields)
    key = fields.choice("key", ("tpm", "any"), default="tpm")
    audiences = load_audiences(fields)
    if "jwt-svid" in formats:
        _check_jwt_svid(path, key=key, audiences=audiences)
    return Grant(
        agent=matching(fields.text("agent"), AGENT, fields.at("agent")),
        spiffe_id=parse_template(fields.text("spiffe_id", default=DEFAULT), fields.at("spiffe_id")),
        formats=formats,
        ttl=load_duration(fields, "ttl", default=DEFAULT_TTL, most=MAX_TTL),
        key=key,
        audiences=audiences,
        scopes=load_scopes(fields),
        authorization_details=load_authorization_details(fields),
        bearer=load_bearer(fields, key=key),
        max_posture_age=load_max_posture_age(fields),
        delegation=load_delegation(fields),
    )


def _formats(fields: Fields) -> tuple[str, ...]:
    formats = fields.texts("formats")
    for index, name in enumerate(formats):
        path = f"{fields.at('formats')}[{index}]"
        if name not in FORMATS:
            raise refusal("value_wrong", path, expected=one_of(FORMATS), found=name, step="write another")
    return formats


def _check_jwt_svid(path: str, *, key: str, audiences: Collection[str]) -> None:
    """A JWT-SVID is bound to no key, and is good for its audience alone."""
    if key != "any":
        raise refusal(
            "value_wrong",
            f"{path}.key",
            expected='"any" beside jwt-svid, which is bound to no key',
            found=key,
            step='write key = "any", or give jwt-svid a grant of its own',
        )
    if not audiences:
        raise PolicyError(
            "key_missing", f"{path}.audiences: jwt-svid needs those it is meant for; add audiences = […]"
        )


def _seal(value: object, path: str) -> Seal:
    fields = Fields(value, path, known=_SEAL, not_yet=_SEAL_LATER)
    kind = fields.text("kind")
    secret = _SECRET.fullmatch(kind)
    if kind not in _KINDS and (secret is None or int(secret[1]) not in _SECRET_SIZES):
        raise refusal(
            "value_wrong",
            fields.at("kind"),
            expected=f'"secret-16" to "secret-128" or {one_of(_KINDS)}',
            found=kind,
            step="write one of these",
        )
    return Seal(
        name=matching(fields.text("name"), AGENT, fields.at("name")),
        kind=kind,
        pcrs=fields.registers("pcrs"),
    )


def _refuse_conflict(earlier: Grant, grant: Grant, path: str) -> None:
    both = [name for name in grant.formats if name in earlier.formats]
    if both:
        raise refusal(
            "grants_conflict",
            f"{path}.formats",
            expected=f"formats that no other grant gives to {grant.agent}",
            found=both[0],
            step="leave it in one grant",
        )
    if earlier.spiffe_id != grant.spiffe_id:
        raise refusal(
            "grants_conflict",
            f"{path}.spiffe_id",
            expected=f"the one SPIFFE ID of {grant.agent}, {earlier.spiffe_id.text}",
            found=grant.spiffe_id.text,
            step="write the same one, or name another agent",
        )
