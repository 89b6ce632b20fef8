"""Did this attestation key sign this statement, for this request?"""

import hmac

from tpm.errors import EvidenceError
from tpm.structures.attest import Certification, Quote
from tpm.structures.signature import Signature
from tpm.verify.keys import AttestationKey
from tpm.verify.signature import verify_signature


def verify_statement(
    statement: Quote | Certification,
    signature: Signature,
    *,
    ak: AttestationKey,
    expected_extra_data: bytes,
    expected_signers: frozenset[bytes] | None,
) -> None:
    """What a quote and a certification have in common; the magic number and the type were checked when it was
    parsed.

    `expected_signers` of None says that the key's place in its TPM is unknown, as offline; an empty set
    refuses. EvidenceError "scheme_mismatch", "bad_signature", "nonce_missing", "nonce_mismatch" or
    "qualified_signer".
    """
    # 1. The attestation key signed exactly these bytes.
    verify_signature(ak.key, ak.scheme, ak.hash, signature, statement.raw)
    # 2. They answer our request: the same bytes at the same length.
    if not hmac.compare_digest(statement.extra_data, expected_extra_data):
        if not statement.extra_data:
            raise EvidenceError(
                "nonce_missing", "The TPM signed no qualifying data; the request's was expected."
            )
        raise EvidenceError(
            "nonce_mismatch",
            f"The TPM signed the qualifying data {statement.extra_data.hex()}; "
            f"{expected_extra_data.hex()} is expected.",
        )
    # 3. The key sits where we know it to be, in the TPM of the endorsement key.
    if expected_signers is not None and statement.qualified_signer not in expected_signers:
        raise EvidenceError(
            "qualified_signer",
            f"The signer calls itself {statement.qualified_signer.hex() or 'nothing'}; it is neither a "
            "primary key of the endorsement hierarchy nor a child of the endorsement key.",
        )
