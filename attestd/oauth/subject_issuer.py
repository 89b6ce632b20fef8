"""Whose user is this, according to an OpenID Provider that an operator trusts?

Only the configured issuers ([[subject_issuer]]) are believed, each for tokens that are meant for us alone,
under its own keys. Keys are fetched, where they are not a file, from the issuer's origin and from nowhere
that a token or a document names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attestd.counterparts import SubjectIssuer
from attestd.oauth import fetch, jose, key_sets
from attestd.oauth.claims import Claims
from attestd.oauth.errors import OAuthError, TokenError
from attestd.oauth.jose import Unverified
from attestd.oauth.key_sets import ALGS, FetchedKeys, FileKeys, Keys, KeySource, read_key_set
from attestd.oauth.narrowing import Actor, Detail, check_details, read_actors
from attestd.wire import Problem, load_json
from tpm.errors import StructureError

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
KINDS: Final[Mapping[str, frozenset[str | None]]] = {
    "urn:ietf:params:oauth:token-type:id_token": frozenset({None, "jwt"}),
    "urn:ietf:params:oauth:token-type:jwt": frozenset({None, "jwt", "at+jwt"}),
    "urn:ietf:params:oauth:token-type:access_token": frozenset({"at+jwt"}),
}
"""The `typ` of each kind of subject token, so that no kind is taken for another (RFC 9068, section 5)."""
MAX_ACTORS: Final = 8
_SCHEME: Final = "spiffe://"


@dataclass(frozen=True, slots=True)
class Subject:
    """A user for whom a token speaks, and the most that it lets anybody do; None where it says nothing of it.

    Comes from `SubjectIssuers.verify` alone. Times in milliseconds.
    """

    issuer: str
    subject: str
    expires_at: int
    actors: tuple[Actor, ...]
    may_act: object
    """The claim, or None; not judged yet."""
    scopes: frozenset[str] | None
    details: tuple[Detail, ...] | None


def issuer_of(token: str, token_type: str) -> str:
    """Who says to have issued this token of this type; nobody is believed yet. TokenError for another
    type."""
    if token_type not in KINDS:
        raise TokenError("token_type", f"subject_token_type is one of {', '.join(sorted(KINDS))}")
    return jose.read(token, typ=KINDS[token_type], algs=ALGS).claims.text("iss")


class SubjectIssuers:
    """The trusted OpenID Providers with their keys. Shared by all threads."""

    def __init__(self, configured: Sequence[SubjectIssuer]) -> None:
        """Reads the key files: PolicyError names one that cannot be used. Fetches nothing yet."""
        self._known: dict[str, tuple[SubjectIssuer, KeySource]] = {
            each.issuer: (each, _source(each)) for each in configured
        }

    def names(self, issuer: str) -> bool:
        """Is this issuer, compared as a whole string, one of them?"""
        return issuer in self._known

    def verify(self, token: str, token_type: str, *, now: int) -> Subject:
        """The user whom this token names. `token_type` is one of `KINDS`. TokenError when it is not a valid
        one of it; Problem `unavailable` while the issuer's keys cannot be had."""
        # 1. Of the kind that it is said to be, by its own `typ`.
        unverified = jose.read(token, typ=KINDS[token_type], algs=ALGS)
        # 2. Of an issuer that is trusted: what it says of itself only chooses among those.
        issuer = unverified.claims.text("iss")
        if issuer not in self._known:
            raise TokenError("issuer_unknown", "its issuer is not one of the trusted OpenID Providers")
        configured, source = self._known[issuer]
        # 3. Signed by that issuer.
        claims = _verified(source, unverified, now=now)
        # 4. Meant for us and nobody else, valid now.
        claims.require_sole_audience(configured.audience)
        expires_at = claims.require_current(now=now)
        # 5. About somebody, who is none of our agents.
        subject = claims.text("sub")
        if subject.lower().startswith(_SCHEME) or not subject.isprintable():
            raise TokenError("subject", "sub names a user; SPIFFE IDs are the agents' own")
        return _subject(issuer, subject, expires_at, claims)


def _subject(issuer: str, subject: str, expires_at: int, claims: Claims) -> Subject:
    members = claims.members
    try:
        actors = read_actors(members.get("act"), issuer=issuer, most=MAX_ACTORS)
        details = (
            check_details(members["authorization_details"]) if "authorization_details" in members else None
        )
    except OAuthError as error:
        raise TokenError(error.cause or "claim", error.description) from None
    scope = claims.optional_text("scope")
    scopes = None if scope is None else frozenset(scope.split(" "))
    if "may_act" in members and members["may_act"] is None:
        raise TokenError("may_act", "may_act is an object")
    return Subject(issuer, subject, expires_at, actors, members.get("may_act"), scopes, details)


def _verified(source: KeySource, unverified: Unverified, *, now: int) -> Claims:
    try:
        return key_sets.verify(source, unverified, now=now)
    except TokenError as error:
        if error.reason != "keys_unreachable":
            raise
        detail = "The keys of the user's OpenID Provider cannot be fetched now; nothing was granted."
        raise Problem("unavailable", detail, cause="subject_issuer_unreachable", retry_after=30) from None


def _source(issuer: SubjectIssuer) -> KeySource:
    if isinstance(issuer.jwks, Path):
        return FileKeys(issuer.jwks)
    return FetchedKeys(lambda: discover(issuer))


def discover(issuer: SubjectIssuer) -> Keys:
    """The keys that the issuer publishes (OpenID Connect Discovery 1.0, section 4). TokenError or
    StructureError when its documents are not what they must be, or lead elsewhere."""
    try:
        document = _json(
            fetch.fetch(issuer.issuer.rstrip("/") + DISCOVERY_PATH, allow_private=issuer.allow_private)
        )
        # Section 4.3: it must be about the issuer that was asked.
        if document.get("issuer") != issuer.issuer:
            raise TokenError("discovery", "the document is another issuer's")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or fetch.origin_of(jwks_uri) != fetch.origin_of(issuer.issuer):
            raise TokenError("discovery", "jwks_uri leads away from the issuer; name its keys as a file")
        return read_key_set(fetch.fetch(jwks_uri, allow_private=issuer.allow_private))
    except fetch.Unfetched as error:
        raise TokenError("discovery", str(error)) from None


def _json(raw: bytes) -> dict[str, Any]:
    try:
        return load_json(raw)
    except Problem as problem:
        raise StructureError("discovery_unreadable", problem.detail) from None
