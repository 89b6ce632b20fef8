"""What does this access token say, and is it for us? (RFC 9068, section 4)"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestd.resource.caller import Caller, Refused
from attestd.resource.jws import Jws, read, verify
from attestd.resource.keys import IssuerKeys

TYP: Final = "at+jwt"
ALGS: Final = ("ES256", "ES384", "ES512", "PS256", "RS256")
"""What attestd's keys for tokens may sign with."""
BASIS: Final = "urn:attestd:attestation"
USER_ISSUER: Final = "urn:attestd:subject_issuer"
SKEW_SECONDS: Final = 5

_SPIFFE_ID: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+")
_SCOPE: Final = re.compile(r"(?:[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*)?")
_MAX_ACTORS: Final = 16


@dataclass(frozen=True, slots=True)
class Token:
    """A token that its issuer signed for us and that has not expired; comes from `read_token` alone.

    Whether its sender holds the key, and whether it was ended since, is not asked here.
    """

    caller: Caller
    claims: Mapping[str, Any]
    binding: str
    """`jkt`, `x5t#S256`, or empty for a bearer token."""
    bound_to: str


def read_token(text: str, *, keys: IssuerKeys, issuer: str, audience: str, now: float) -> Token:
    """Refused `invalid_token`, or `temporarily_unavailable` when the issuer's keys cannot be had."""
    try:
        # 1. An access token, and nothing else that the issuer signs.
        jws = read(text, typ=TYP, algs=ALGS)
        # 2. Signed by a key of the issuer, with that key's algorithm.
        verify(jws, keys.find(jws.header.get("kid"), alg=jws.alg, now=now), alg=jws.alg)
        # 3. By this issuer, for this resource, now.
        if jws.text("iss") != issuer:
            raise ValueError("iss is another issuer")
        if audience not in _audience(jws):
            raise ValueError("aud is another resource")
        if jws.time("exp") <= now:
            raise ValueError("it has expired")
        for name in {"iat"} | ({"nbf"} & jws.claims.keys()):
            if jws.time(name) > now + SKEW_SECONDS:
                raise ValueError(f"{name} lies ahead")
        # 4. What it says of the agent, and what it is bound to.
        return Token(_caller(jws), jws.claims, *_binding(jws))
    except ValueError as error:
        raise Refused("invalid_token", f"The access token is not valid here: {error}.") from None


def _audience(jws: Jws) -> list[str]:
    value = jws.claims.get("aud")
    audience = [value] if isinstance(value, str) else value
    if not isinstance(audience, list) or not all(isinstance(each, str) for each in audience):
        raise ValueError("aud is text, or a list of texts")
    return audience


def _caller(jws: Jws) -> Caller:
    agent, subject, basis = jws.text("client_id"), jws.text("sub"), jws.claims.get(BASIS)
    if _SPIFFE_ID.fullmatch(agent) is None:
        raise ValueError("client_id is no agent's SPIFFE ID")
    if not isinstance(basis, dict) or not all(
        isinstance(basis.get(name), str) for name in ("assurance", "policy", "attestation")
    ):
        raise ValueError("it does not say what attestation it rests on")
    actors = _actors(jws.claims.get("act"))
    if actors and actors[0] != agent:
        raise ValueError("the actor is not the client")
    scope = jws.claims.get("scope", "")
    if not isinstance(scope, str) or _SCOPE.fullmatch(scope) is None:
        raise ValueError("scope is no list of scopes")
    return Caller(
        agent=agent,
        user=None if subject == agent and USER_ISSUER not in jws.claims else subject,
        user_issuer=jws.text(USER_ISSUER) if USER_ISSUER in jws.claims else None,
        actors=actors,
        scopes=frozenset(scope.split()),
        assurance=basis["assurance"],
        policy=basis["policy"],
        attestation=basis["attestation"],
        token_id=jws.text("jti", size=256),
        expires_at=jws.time("exp"),
        authorization_details=_details(jws.claims.get("authorization_details", [])),
    )


def _actors(act: Any) -> tuple[str, ...]:
    """RFC 8693, section 4.1; () where nobody acts for another."""
    found: list[str] = []
    while act is not None:
        if not isinstance(act, dict) or not isinstance(act.get("sub"), str) or len(found) == _MAX_ACTORS:
            raise ValueError("act is no chain of actors")
        found.append(act["sub"])
        act = act.get("act")
    return tuple(found)


def _details(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not all(
        isinstance(each, dict) and isinstance(each.get("type"), str) for each in value
    ):
        raise ValueError("authorization_details is no list of objects with a type")
    return tuple(value)


def _binding(jws: Jws) -> tuple[str, str]:
    """A binding that we cannot check is one that does not hold."""
    cnf = jws.claims.get("cnf", {})
    if not isinstance(cnf, dict) or len(cnf) > 1 or not cnf.keys() <= {"jkt", "x5t#S256"}:
        raise ValueError("cnf is neither jkt nor x5t#S256")
    for binding, value in cnf.items():
        if not isinstance(value, str) or not value.isascii():
            raise ValueError("cnf is no thumbprint")
        return binding, value
    if "cnf" in jws.claims:
        raise ValueError("cnf is empty")
    return "", ""
