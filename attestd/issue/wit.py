"""How is a workload identity token (WIT, as a WIT-SVID) made?

draft-ietf-wimse-workload-creds, section 5.1, within the narrower SPIFFE WIT-SVID profile: `kid` present, no
`aud`, algorithms of the JWT-SVID list. It is bound to a key and is no bearer token. `iss` names the trust
domain and not our URL, so that nobody fetches keys from where a token says (section 5.1.3); its keys are in
the SPIFFE bundle alone.
"""

from attestd.issue.jwk import BoundKey
from attestd.issue.jws import sign
from attestd.issue.signer import Signer
from attestd.issue.statement import CLAIM, Statement
from tpm.errors import EvidenceError

TYP = "wit+jwt"


def issue(signer: Signer, statement: Statement, *, key: BoundKey, jti: str) -> str:
    """The compact token. `jti` comes from `statement.token_id`. EvidenceError `key_reuse` for the signing
    key itself."""
    if key.jwk == signer.jwk:
        raise EvidenceError("key_reuse", "the key is one of this service's own")
    claims = {
        "iss": f"spiffe://{statement.trust_domain}",
        "sub": statement.spiffe_id,
        "iat": statement.iat,
        "exp": statement.exp,
        "jti": jti,
        "cnf": {"jwk": key.members},
        CLAIM: statement.basis.claim(),
    }
    return sign(signer, typ=TYP, claims=claims)
