"""Are these the register values that were quoted?"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tpm.errors import EvidenceError
from tpm.structures.algorithms import Hash, hash_by_name
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.verify.quote import VerifiedQuote

# SHA-1 is left out on purpose: a register of that bank says nothing that a collision could not say.
BANKS_ALLOWED = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class VerifiedPcrs:
    """The values of one bank that a TPM quoted, by register, ascending. Comes from `verify_pcrs` alone."""

    bank: str
    values: Mapping[int, bytes]


def verify_pcrs(
    quote: VerifiedQuote, values: Mapping[str, Mapping[int, bytes]], *, hash: Hash
) -> VerifiedPcrs:
    """The values beside a quote are those it covers: one bank, exactly the signed registers, the signed
    digest.

    `hash` is that of the attestation key's scheme, with which the TPM made the digest; the bank may be
    another. EvidenceError "selection_empty", "bank_repeated", "bank_not_allowed", "banks_several" or
    "pcr_mismatch".
    """
    # 1. The signed selection names some register, in one bank that we accept.
    bank, pcrs = _one_bank(quote.quote.selection)
    # 2. Exactly these registers are reported, and together they hash to what was signed.
    _check_values(quote, values, hash)
    return VerifiedPcrs(bank, MappingProxyType({pcr: values[bank][pcr] for pcr in pcrs}))


def check_quoted_values(
    quote: VerifiedQuote, values: Mapping[str, Mapping[int, bytes]] | None, *, hash: Hash
) -> None:
    """As `verify_pcrs`, for every bank of a selection of any banks; without values, the selection alone.

    For evidence that is looked at and not relied on: SHA-1 banks and several banks pass. EvidenceError
    "selection_empty", "bank_repeated" or "pcr_mismatch".
    """
    _check_selection(quote.quote.selection)
    if values is not None:
        _check_values(quote, values, hash)


def _check_values(quote: VerifiedQuote, values: Mapping[str, Mapping[int, bytes]], hash: Hash) -> None:
    selected = {bank: pcrs for bank, pcrs in quote.quote.selection.banks if pcrs}
    # 1. Exactly the signed registers are reported, in the signed banks and no other.
    if set(values) != set(selected):
        banks, found = (", ".join(sorted(names)) or "none" for names in (selected, values))
        raise _mismatch(f"The quote covers the bank {banks}; values came for {found}.")
    for bank, pcrs in selected.items():
        reported, size = values[bank], hash_by_name(bank).size
        if set(reported) != set(pcrs):
            raise _mismatch(
                f"The quote covers registers {_listed(pcrs)}; values came for {_listed(reported)}."
            )
        # 2. Each value is as long as the bank's digests.
        for pcr in pcrs:
            if len(reported[pcr]) != size:
                raise _mismatch(f"Register {pcr} of {bank} has {len(reported[pcr])} bytes, not {size}.")
    # 3. Together they hash to what was signed.
    if not hmac.compare_digest(pcr_digest(quote.quote.selection, values, hash), quote.quote.pcr_digest):
        raise _mismatch("The reported values do not hash to the quoted digest.")


def _check_selection(selection: PcrSelection) -> None:
    if not any(pcrs for _, pcrs in selection.banks):
        raise EvidenceError("selection_empty", "The quote covers no register.")
    names = [bank for bank, _ in selection.banks]
    if len(set(names)) != len(names):
        raise EvidenceError("bank_repeated", f"The quote names a bank twice: {', '.join(names)}.")


def _one_bank(selection: PcrSelection) -> tuple[str, tuple[int, ...]]:
    _check_selection(selection)
    names = [bank for bank, _ in selection.banks]
    for bank in names:
        if bank not in BANKS_ALLOWED:
            raise EvidenceError(
                "bank_not_allowed", f"The {bank} bank is not accepted; quote {BANKS_ALLOWED[0]}."
            )
    if len(names) > 1:
        raise EvidenceError("banks_several", f"The quote covers {', '.join(names)}; one bank is expected.")
    return selection.banks[0]


def _listed(pcrs: "Mapping[int, bytes] | tuple[int, ...]") -> str:
    return ", ".join(str(pcr) for pcr in sorted(pcrs)) or "none"


def _mismatch(detail: str) -> EvidenceError:
    return EvidenceError("pcr_mismatch", detail)
