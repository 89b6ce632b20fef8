"""Is nothing wider, longer or deeper than what it comes from?

Every function takes what was asked for, what the policy grants, and what the parent had (None where there is
no parent, or where it says nothing of this), and gives what the token may say; or refuses aloud. Nothing that
was asked for is quietly left out.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from attestd.oauth.errors import OAuthError
from attestd.wire import Problem, load_json

DEFAULT_SECONDS: Final = 300
LEAST_SECONDS: Final = 1
MAX_DETAILS: Final = 16
MAX_DETAILS_SIZE: Final = 8 * 1024

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749, section 3.3
_LISTS = ("locations", "actions", "datatypes", "privileges")
"""Common fields of RFC 9396, section 2.2, that are lists of text; a part of a list is narrower."""

Detail = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Actor:
    """One party of an `act` chain (RFC 8693, section 4.1); `issuer` is None for an agent of ours."""

    subject: str
    issuer: str | None = None


def narrow_scope(wanted: str | None, *, granted: Sequence[str], parent: Collection[str] | None) -> str:
    """The scope, space-separated in the order of the grant; everything that both allow if none was asked for.
    OAuthError `invalid_scope`."""
    allowed = [scope for scope in granted if parent is None or scope in parent]
    if wanted is None:
        return " ".join(allowed)
    if _SCOPE.fullmatch(wanted) is None:
        raise OAuthError("invalid_scope", "scope is a list of scopes with one space between them")
    asked = wanted.split(" ")
    if missing := [scope for scope in asked if scope not in allowed]:
        what = "its grant gives it" if missing[0] not in granted else "the subject token has"
        raise OAuthError("invalid_scope", f"the agent asks for more than {what}", cause="scope_widened")
    return " ".join(scope for scope in allowed if scope in asked)


def narrow_audience(wanted: Sequence[str], *, granted: Sequence[str], parent: Collection[str] | None) -> str:
    """The one audience of the token, compared as a whole string; the only one that both allow if none was
    asked for. OAuthError `invalid_target`."""
    allowed = [audience for audience in granted if parent is None or audience in parent]
    if len(set(wanted)) > 1:
        raise OAuthError(
            "invalid_target", "a token is for one audience; ask for a token for each", cause="audiences"
        )
    if not wanted:
        if len(allowed) != 1:
            raise OAuthError("invalid_target", "name the resource that the token is for", cause="no_target")
        return allowed[0]
    if wanted[0] not in allowed:
        where = "its grant names" if wanted[0] not in granted else "the subject token is for"
        raise OAuthError(
            "invalid_target", f"the agent may be told to none but those that {where}", cause="target_widened"
        )
    return wanted[0]


def check_resource(resource: str) -> None:
    """RFC 8707, section 2: an absolute URI without a fragment. OAuthError `invalid_target`."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        parts = None
    if parts is None or not parts.scheme or not (parts.netloc or parts.path) or "#" in resource:
        raise OAuthError("invalid_target", "resource is an absolute URI without a fragment", cause="resource")


def narrow_details(
    wanted: str | None, *, types: Collection[str], parent: Sequence[Detail] | None
) -> tuple[Detail, ...]:
    """The authorization details (RFC 9396) of the token: of granted types only, and each within one of the
    parent's. Where none were asked for, those of the parent that the grant's types allow. OAuthError
    `invalid_authorization_details`."""
    if wanted is None:
        return tuple(detail for detail in parent or () if detail["type"] in types)
    details = read_details(wanted)
    for detail in details:
        if detail["type"] not in types:
            raise _details("the grant does not give this type", cause="details_type")
        if parent is not None and not any(_within(detail, one) for one in parent):
            raise _details("this is more than the subject token has", cause="details_widened")
    return details


def read_details(text: str) -> tuple[Detail, ...]:
    """A JSON array of objects, each with its type and the common fields as they must be."""
    raw = text.encode()
    if len(raw) > MAX_DETAILS_SIZE:
        raise _details(f"it has more than {MAX_DETAILS_SIZE} bytes")
    try:
        document = load_json(b'{"details":' + raw + b"}")
    except Problem:
        raise _details("it is not JSON with one meaning, or has fractions") from None
    if document.keys() != {"details"}:
        raise _details("it is not one JSON value")
    return check_details(document["details"])


def check_details(value: object) -> tuple[Detail, ...]:
    """The same for a value that is parsed already."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_DETAILS:
        raise _details(f"it is not an array of 1 to {MAX_DETAILS} objects")
    for detail in value:
        if not isinstance(detail, dict) or not _text(detail.get("type")):
            raise _details("each is an object with a type")
        lists = [detail[name] for name in _LISTS if name in detail]
        if not all(isinstance(one, list) and one and all(map(_text, one)) for one in lists):
            raise _details(f"{', '.join(_LISTS)} are lists of text")
        if "identifier" in detail and not _text(detail["identifier"]):
            raise _details("identifier is text")
    return tuple(value)


def narrow_lifetime(*, now: int, ends: Iterable[int | None]) -> int:
    """When the token ends (milliseconds, on a whole second): after five minutes, or with the first of `ends`.
    OAuthError `invalid_grant` when nothing is left."""
    end = min([now + DEFAULT_SECONDS * 1000, *(one for one in ends if one is not None)])
    end -= end % 1000
    if end < now + LEAST_SECONDS * 1000:
        detail = "what the token would rest on is ending; attest anew"
        raise OAuthError("invalid_grant", detail, cause="nothing_left")
    return end


def extend_actors(agent: str, *, subject: str, actors: Sequence[Actor], depth: int) -> tuple[Actor, ...]:
    """The chain with this agent as its newest actor, outermost first. Whoever acted before stays in it.
    OAuthError `invalid_request` for a chain of more than `depth` actors, or one that comes back to an
    agent."""
    if agent == subject or any(actor.subject == agent for actor in actors):
        raise OAuthError(
            "invalid_request", "the agent is in this chain of delegation already", cause="delegation_loop"
        )
    if len(actors) + 1 > depth:
        raise OAuthError("invalid_request", "this may not be passed on so far", cause="delegation_depth")
    return (Actor(agent), *actors)


def act_claim(actors: Sequence[Actor]) -> dict[str, Any] | None:
    """The nested `act` claim; None without actors."""
    claim: dict[str, Any] | None = None
    for actor in reversed(actors):
        named = (
            {"sub": actor.subject} if actor.issuer is None else {"iss": actor.issuer, "sub": actor.subject}
        )
        claim = named if claim is None else {**named, "act": claim}
    return claim


def read_actors(claim: object, *, issuer: str | None, most: int) -> tuple[Actor, ...]:
    """An `act` claim as a chain, outermost first. Actors of another issuer who name none are that issuer's.
    OAuthError `invalid_request` for what is no chain, or names more than `most`."""
    actors: list[Actor] = []
    while claim is not None:
        if not isinstance(claim, dict) or not _text(claim.get("sub")) or len(actors) >= most:
            raise OAuthError("invalid_request", "the act claim is no chain of actors", cause="act_claim")
        if "iss" in claim and not _text(claim["iss"]):
            raise OAuthError("invalid_request", "the act claim is no chain of actors", cause="act_claim")
        actors.append(Actor(claim["sub"], claim.get("iss", issuer)))
        claim = claim.get("act")
    return tuple(actors)


def check_may_act(claim: object, *, agent: str, issuers: Collection[str]) -> None:
    """RFC 8693, section 4.4: only whom the subject's token names may act for it. A claim that cannot be
    understood whole names nobody. OAuthError `invalid_request`."""
    if claim is None:
        return
    named = claim if isinstance(claim, dict) else {}
    good = named.get("sub") == agent and named.keys() <= {"sub", "iss", "client_id"}
    good = good and named.get("iss", agent) in (agent, *issuers) and named.get("client_id", agent) == agent
    if not good:
        detail = "the subject token names another who may act"
        raise OAuthError("invalid_request", detail, cause="may_act")


def _within(detail: Detail, parent: Detail) -> bool:
    """The same members as the parent: lists may lose entries, anything else stays as it is. What a member
    that the parent lacks would mean, only the resource knows, and it may mean more."""
    if detail.keys() != parent.keys():
        return False
    for name, value in parent.items():
        if name in _LISTS:
            if not set(detail[name]) <= set(value):
                return False
        elif not _same(detail[name], value):
            return False
    return True


def _same(one: object, other: object) -> bool:
    """Equal as JSON: in Python True is 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 2048 and value.isprintable()


def _details(why: str, *, cause: str = "details_form") -> OAuthError:
    return OAuthError("invalid_authorization_details", f"authorization_details: {why}", cause=cause)
