"""Which credentials does the policy grant, and which secrets does it seal?"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from attestd.clock import parse_duration
from attestd.policy.fields import Fields, later, matching, one_of, refusal
from attestd.policy.labels import AGENT
from attestd.policy.template import DEFAULT, Template, parse_template
from tpm.errors import PolicyError

FORMATS = ("x509-svid", "wit-svid", "jwt-svid")
MAX_TTL = 24 * 60 * 60
DEFAULT_TTL = "10m"

_OAUTH = "agents as OAuth clients"
_GRANT = ("agent", "spiffe_id", "formats", "ttl", "key", "audiences")
_GRANT_LATER = dict.fromkeys(
    ("scopes", "authorization_details", "bearer", "max_posture_age", "delegation"), _OAUTH
)
_FORMATS_LATER = {"client-attestation": _OAUTH}
_SEAL = ("name", "kind", "pcrs")
_SEAL_LATER = {"authorized": "signed PCR policies that survive updates"}
_KINDS = ("ec-p256", "rsa-2048", "hmac-sha256")
_SECRET = re.compile(r"secret-([1-9][0-9]{1,2})")
_SECRET_SIZES = range(16, 129)


@dataclass(frozen=True, slots=True)
class Grant:
    """One agent's credentials.

    `ttl` is in seconds; `key` is "tpm" (born in the TPM) or "any"; an audience is compared as a whole string.
    """

    agent: str
    spiffe_id: Template
    formats: tuple[str, ...]
    ttl: int
    key: str
    audiences: tuple[str, ...]


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
    fields = Fields(value, path, known=_GRANT, not_yet=_GRANT_LATER)
    formats = _formats(fields)
    key = fields.choice("key", ("tpm", "any"), default="tpm")
    audiences = _audiences(fields) if fields.has("audiences") else ()
    if "jwt-svid" in formats:
        _check_jwt_svid(path, key=key, audiences=audiences)
    return Grant(
        agent=matching(fields.text("agent"), AGENT, fields.at("agent")),
        spiffe_id=parse_template(fields.text("spiffe_id", default=DEFAULT), fields.at("spiffe_id")),
        formats=formats,
        ttl=_ttl(fields),
        key=key,
        audiences=audiences,
    )


def _formats(fields: Fields) -> tuple[str, ...]:
    formats = fields.texts("formats")
    for index, name in enumerate(formats):
        path = f"{fields.at('formats')}[{index}]"
        if name in _FORMATS_LATER:
            raise later(f'{path} "{name}"', _FORMATS_LATER[name])
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


def _audiences(fields: Fields) -> tuple[str, ...]:
    audiences = fields.texts("audiences")
    for index, audience in enumerate(audiences):
        if "*" in audience or " " in audience:
            raise refusal(
                "value_wrong",
                f"{fields.at('audiences')}[{index}]",
                expected="one whole audience, without wildcards and spaces",
                found=audience,
                step="list every audience",
            )
    return audiences


def _ttl(fields: Fields) -> int:
    """Seconds; more than none and at most a day."""
    written = fields.text("ttl", default=DEFAULT_TTL)
    try:
        seconds = parse_duration(written)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_TTL:
        raise refusal(
            "value_wrong",
            fields.at("ttl"),
            expected="a duration of more than none and at most 24h",
            found=written,
            step='write it like "10m" or "1h"',
        )
    return seconds


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
