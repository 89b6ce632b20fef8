"""How is a token of ours signed?

Compact JWS (RFC 7515) with exactly three header parameters. `typ` keeps the kinds apart: none of our tokens
can be read as another kind by anyone who checks it (RFC 8725, section 3.11).
"""

from collections.abc import Mapping
from typing import Any

import jwt

from attestd.issue.signer import Signer


def sign(signer: Signer, *, typ: str, claims: Mapping[str, Any]) -> str:
    """The compact serialisation; the header is `alg`, `kid` and `typ`, and nothing else."""
    headers = {"typ": typ, "kid": signer.kid}
    return jwt.encode(dict(claims), signer.private_key, algorithm=signer.alg, headers=headers)
