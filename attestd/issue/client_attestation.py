"""How is a client attestation made?

draft-ietf-oauth-attestation-based-client-auth: attestd is the client attester. With it and a proof by its
key the agent authenticates as an OAuth client, here or at another authorization server that trusts our keys.
It is no bearer token, and `typ` keeps it apart from WIT-SVIDs, which say much the same.
"""

from attestd.issue.jwk import BoundKey
from attestd.issue.jws import sign
from attestd.issue.signer import Signer
from attestd.issue.statement import CLAIM, Statement
from tpm.errors import EvidenceError

TYP = "oauth-client-attestation+jwt"


def issue(signer: Signer, statement: Statement, *, issuer: str, key: BoundKey, jti: str) -> str:
    """The compact token; `sub` is the client_id. `issuer` is our external URL, where its keys are found.
    EvidenceError `key_reuse` for the signing key itself."""
    if key.jwk == signer.jwk:
        raise EvidenceError("key_reuse", "the key is one of this service's own")
    claims = {
        "iss": issuer,
        "sub": statement.spiffe_id,
        "iat": statement.iat,
        "exp": statement.exp,
        "jti": jti,
        "cnf": {"jwk": key.members},
        CLAIM: statement.basis.claim(),
    }
    return sign(signer, typ=TYP, claims=claims)
