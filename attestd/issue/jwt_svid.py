"""How is a JWT-SVID made?

JWT-SVID standard, sections 2 and 3. A bearer token: whoever holds it is believed, by those whom `aud`
names. So it is issued only where the policy says so, is short-lived, and always names its audience.
"""

from collections.abc import Sequence

from attestd.issue.jws import sign
from attestd.issue.signer import Signer
from attestd.issue.statement import CLAIM, Statement
from tpm.errors import StructureError

TYP = "JWT"


def issue(signer: Signer, statement: Statement, *, issuer: str, audience: Sequence[str], jti: str) -> str:
    """The compact token. `issuer` is our external URL, where OpenID discovery finds the keys.
    StructureError `no_audience` when nobody is named."""
    if not audience or not all(audience):
        raise StructureError("no_audience", "a JWT-SVID names whom it is for")
    claims = {
        "iss": issuer,
        "sub": statement.spiffe_id,
        "aud": list(audience),
        "iat": statement.iat,
        "exp": statement.exp,
        "jti": jti,
        CLAIM: statement.basis.claim(),
    }
    return sign(signer, typ=TYP, claims=claims)
