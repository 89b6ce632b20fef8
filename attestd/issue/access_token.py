"""How is an access token made?

RFC 9068: `typ` is `at+jwt`, so that no other token of ours is read as one. `client_id` is the agent; `sub` is
the user for whom it acts, or the agent itself. `cnf` binds it to a key or a certificate (RFC 9449, RFC 8705);
`act` names who acts (RFC 8693). It says what it rests on like every credential.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestd.issue.jws import sign
from attestd.issue.signer import Signer
from attestd.issue.statement import CLAIM, Basis
from tpm.errors import StructureError

TYP = "at+jwt"
SUBJECT_ISSUER = "urn:attestd:subject_issuer"
"""The claim for who vouched for a user; `iss` is us, and `sub` is unique for its own issuer alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What an access token says; whether it may is not asked here. Times in milliseconds."""

    issuer: str
    """Our external URL, where its keys are found."""
    subject: str
    client_id: str
    audience: tuple[str, ...]
    token_id: str
    """The `jti`, from `statement.token_id`."""
    basis: Basis
    issued_at: int
    expires_at: int
    """On a whole second; `lifetime.expiry` makes it."""
    scope: str = ""
    """Separated by spaces."""
    confirmation: Mapping[str, str] | None = None
    """`{"jkt": …}` or `{"x5t#S256": …}`; None for a bearer token."""
    actor: Mapping[str, Any] | None = None
    """The claim `act`; None where nobody acts for another."""
    authorization_details: Sequence[Mapping[str, Any]] | None = None
    subject_issuer: str | None = None
    """The OpenID Provider whose user `subject` is: two providers may give two users one name."""

    def __post_init__(self) -> None:
        if self.expires_at <= self.issued_at or self.expires_at % 1000:
            raise ValueError("a token ends after it was issued, on a whole second")

    def claims(self) -> dict[str, Any]:
        """RFC 9068, section 2.2; what is empty is left out."""
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": self.subject,
            "client_id": self.client_id,
            "aud": self.audience[0] if len(self.audience) == 1 else list(self.audience),
            "iat": self.issued_at // 1000,
            "exp": self.expires_at // 1000,
            "jti": self.token_id,
            CLAIM: self.basis.claim(),
        }
        optional: dict[str, Any] = {
            "scope": self.scope,
            "cnf": dict(self.confirmation or {}),
            "act": dict(self.actor or {}),
            SUBJECT_ISSUER: self.subject_issuer,
            "authorization_details": [dict(each) for each in self.authorization_details or ()],
        }
        return claims | {name: value for name, value in optional.items() if value}


def issue(signer: Signer, token: AccessToken) -> str:
    """The compact token. StructureError `no_audience` when nobody is named."""
    if not token.audience or not all(token.audience):
        raise StructureError("no_audience", "an access token names whom it is for")
    return sign(signer, typ=TYP, claims=token.claims())
