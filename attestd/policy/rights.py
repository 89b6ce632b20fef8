"""What may an agent ask for at the token endpoint, and on whose behalf?

A grant is its agent's registration as an OAuth client. Everything is compared whole: a scope, an audience, a
type and an issuer stand for themselves, and nothing is a pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestd.addresses import issuer_fault
from attestd.clock import parse_duration
from attestd.policy.fields import Fields, refusal, typed

MAX_AGE = 24 * 60 * 60
DEPTHS = range(1, 9)

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # scope-token: RFC 6749, section 3.3
_DELEGATION = ("issuers", "depth")


@dataclass(frozen=True, slots=True)
class Delegation:
    """Whose users an agent may act for (issuers of OpenID Providers), and how many actors a token may name.

    `depth` counts the actors: with 1 the agent acts for the user and passes nothing on.
    """

    issuers: tuple[str, ...]
    depth: int


def load_audiences(fields: Fields) -> tuple[str, ...]:
    """Whom a JWT-SVID or an access token may be for."""
    if not fields.has("audiences"):
        return ()
    return _whole(fields, "audiences", one="one whole audience", step="list every audience")


def load_scopes(fields: Fields) -> tuple[str, ...]:
    """Scopes as RFC 6749 spells one of them; a star in one is a star."""
    if not fields.has("scopes"):
        return ()
    scopes = fields.texts("scopes")
    for index, scope in enumerate(scopes):
        if _SCOPE.fullmatch(scope) is None:
            raise refusal(
                "value_wrong",
                f"{fields.at('scopes')}[{index}]",
                expected="one scope: ASCII without spaces, double quotes and backslashes",
                found=scope,
                step="list every scope by itself",
            )
    return scopes


def load_authorization_details(fields: Fields) -> tuple[str, ...]:
    """Types of RFC 9396; what each may say is the resource's to judge."""
    if not fields.has("authorization_details"):
        return ()
    return _whole(fields, "authorization_details", one="one whole type", step="list every type")


def load_bearer(fields: Fields, *, key: str) -> bool:
    """Whether tokens may be bound to nothing: whoever reads one can use it, so none rests on a TPM's key."""
    bearer = fields.has("bearer") and typed(fields.value("bearer"), bool, fields.at("bearer"))
    if bearer and key != "any":
        raise refusal(
            "value_wrong",
            fields.at("bearer"),
            expected='false beside key = "tpm": a bearer token is bound to no key',
            found="true",
            step='write bearer = false, or key = "any" if whoever sees a token may use it',
        )
    return bearer


def load_max_posture_age(fields: Fields) -> int | None:
    """Seconds; None where the posture's own end is the only bound."""
    if not fields.has("max_posture_age"):
        return None
    return load_duration(fields, "max_posture_age", default=None, most=MAX_AGE)


def load_delegation(fields: Fields) -> Delegation | None:
    """Absent: the agent acts for itself alone."""
    if not fields.has("delegation"):
        return None
    table = Fields(fields.value("delegation"), fields.at("delegation"), known=_DELEGATION)
    issuers = table.texts("issuers")
    for index, issuer in enumerate(issuers):
        fault = issuer_fault(issuer)
        if fault is not None:
            raise refusal(
                "value_wrong",
                f"{table.at('issuers')}[{index}]",
                expected="an OpenID Provider's issuer",
                found=issuer,
                step=fault,
            )
    depth = typed(table.value("depth"), int, table.at("depth"))
    if depth not in DEPTHS:
        raise refusal(
            "value_wrong",
            table.at("depth"),
            expected=f"{DEPTHS[0]} to {DEPTHS[-1]} actors",
            found=depth,
            step="write 1 if nothing may be passed on",
        )
    return Delegation(issuers=issuers, depth=depth)


def load_duration(fields: Fields, key: str, *, default: str | None, most: int) -> int:
    """Seconds; more than none and at most `most`, which is in whole hours."""
    written = fields.text(key, default=default)
    try:
        seconds = parse_duration(written)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= most:
        raise refusal(
            "value_wrong",
            fields.at(key),
            expected=f"a duration of more than none and at most {most // 3600}h",
            found=written,
            step='write it like "10m" or "1h"',
        )
    return seconds


def _whole(fields: Fields, key: str, *, one: str, step: str) -> tuple[str, ...]:
    found = fields.texts(key)
    for index, text in enumerate(found):
        if "*" in text or " " in text:
            raise refusal(
                "value_wrong",
                f"{fields.at(key)}[{index}]",
                expected=f"{one}, without wildcards and spaces",
                found=text,
                step=step,
            )
    return found
