"""What does the TPM say about itself, signed?"""

from dataclasses import dataclass
from typing import Any

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.types import TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT, TPMT_SIG_SCHEME

from tpm.device.connection import Connection, LoadedKey
from tpm.device.endorsement import endorsement_session
from tpm.device.refusals import explained
from tpm.device.registers import ATTEMPTS, Values, read_registers, to_library
from tpm.errors import DeviceError
from tpm.structures.attest import parse_quote
from tpm.structures.pcrs import PcrSelection, pcr_digest
from tpm.structures.signature import parse_signature


@dataclass(frozen=True, slots=True)
class QuoteEvidence:
    """A quote with what it was taken over: TPMS_ATTEST, TPMT_SIGNATURE, and the registers' values."""

    attest: bytes
    signature: bytes
    pcrs: Values


@dataclass(frozen=True, slots=True)
class CertificationEvidence:
    """A certification: TPMS_ATTEST and TPMT_SIGNATURE, and of whom: TPM2B_PUBLIC."""

    public: bytes
    attest: bytes
    signature: bytes


def quote(tpm: Connection, ak: LoadedKey, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
    """The AK signs the selected registers, and their values come with it, read so that they belong
    together.

    DeviceError "pcr_unstable" when registers move faster than they can be read.
    """
    for _ in range(ATTEMPTS):
        before = read_registers(tpm, selection)
        with explained("quote its registers"):
            attest, signature = tpm.esapi.quote(
                ak.handle, to_library(selection), qualifying_data, _own_scheme()
            )
            raw, signed = bytes(attest), bytes(signature.marshal())
        quoted, hash = parse_quote(raw), parse_signature(signed).hash
        if quoted.selection.raw != selection.raw:
            raise DeviceError("pcr_missing", "This TPM quotes fewer registers than were asked for.")
        if pcr_digest(selection, before, hash) == quoted.pcr_digest:
            return QuoteEvidence(raw, signed, before)
        after = read_registers(tpm, selection)
        if pcr_digest(selection, after, hash) == quoted.pcr_digest:
            return QuoteEvidence(raw, signed, after)
    raise DeviceError("pcr_unstable", f"The registers moved during each of {ATTEMPTS} quotes; try again.")


def certify(tpm: Connection, key: LoadedKey, ak: LoadedKey, qualifying_data: bytes) -> CertificationEvidence:
    """The AK signs that `key` is loaded beside it."""
    with explained("certify the key"):
        attest, signature = tpm.esapi.certify(key.handle, ak.handle, qualifying_data, _own_scheme())
        return CertificationEvidence(key.public.sized, bytes(attest), bytes(signature.marshal()))


def activate(
    tpm: Connection, ek: LoadedKey, ak: LoadedKey, id_object: bytes, encrypted_secret: bytes
) -> bytes:
    """The secret of a credential challenge (TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET), if it is for this
    EK and AK.

    DeviceError "wrong_parent" when it is not.
    """
    with endorsement_session(tpm, ek, private=True) as session, explained("activate the credential"):
        blob, _ = TPM2B_ID_OBJECT.unmarshal(id_object)
        secret, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(encrypted_secret)
        sessions = {"session1": ESYS_TR.PASSWORD, "session2": session}
        return bytes(tpm.esapi.activate_credential(ak.handle, ek.handle, blob, secret, **sessions))


def _own_scheme() -> Any:
    """The signing scheme that the key itself has."""
    return TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
