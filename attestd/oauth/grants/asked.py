"""What does a grant ask a token for, and how much may it be at most?"""

from dataclasses import dataclass

from attestd.oauth.client.client import Client
from attestd.oauth.narrowing import Actor, Detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One token, for this client, before it is narrowed to its grant.

    `scopes` to `until` are the most that the parent leaves, None where it says nothing of it: what the policy
    grants bounds all of it besides. Times in milliseconds.
    """

    client: Client
    grant_type: str
    subject: str
    """`sub`: the user, or the client itself."""
    subject_issuer: str | None = None
    actors: tuple[Actor, ...] = ()
    parents: tuple[str, ...] = ()
    """Our own tokens that it descends from directly."""
    targets: tuple[str, ...] = ()
    """The audiences that were asked for."""
    scopes: frozenset[str] | None = None
    audiences: frozenset[str] | None = None
    details: tuple[Detail, ...] | None = None
    until: int | None = None
    issued_token_type: str | None = None
    """What RFC 8693 has the answer say."""
