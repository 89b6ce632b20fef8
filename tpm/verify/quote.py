"""Is this quote what it says it is?"""

from dataclasses import dataclass

from tpm.structures.attest import Quote
from tpm.structures.signature import Signature
from tpm.verify.keys import AttestationKey
from tpm.verify.statement import verify_statement


@dataclass(frozen=True, slots=True)
class VerifiedQuote:
    """A quote that the attestation key `ak_name` signed for our request. Comes from `verify_quote` alone."""

    quote: Quote
    ak_name: bytes


def verify_quote(
    quote: Quote,
    signature: Signature,
    *,
    ak: AttestationKey,
    expected_extra_data: bytes,
    expected_signers: frozenset[bytes] | None,
) -> VerifiedQuote:
    """Signature, freshness and signer of a quote; errors and `expected_signers` as in `verify_statement`.

    Not checked: whether the selection is acceptable and which values it covers (`verify_pcrs`), and the clock
    (`judge_continuity`).
    """
    verify_statement(
        quote, signature, ak=ak, expected_extra_data=expected_extra_data, expected_signers=expected_signers
    )
    return VerifiedQuote(quote, ak.name)
