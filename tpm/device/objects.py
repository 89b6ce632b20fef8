"""How does the machine use what was sealed to it, and the keys that were born in its TPM?"""

from typing import Any

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_RH, TPM2_ST
from tpm2_pytss.types import (
    TPM2B_DATA,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMT_TK_HASHCHECK,
)

from tpm.device.connection import Connection, LoadedKey
from tpm.device.keys import KeyBlob, authorized, loaded
from tpm.device.refusals import explained
from tpm.device.registers import while_registers_hold
from tpm.errors import DeviceError
from tpm.structures.algorithms import CURVES_BY_NAME, SHA256, Hash
from tpm.structures.pcrs import PcrSelection
from tpm.structures.public import PublicArea
from tpm.structures.signature import parse_signature

_SCHEMES = {"ecdsa": TPM2_ALG.ECDSA, "rsassa": TPM2_ALG.RSASSA, "rsapss": TPM2_ALG.RSAPSS}


def import_object(
    tpm: Connection, parent: LoadedKey, public: bytes, duplicate: bytes, encrypted_seed: bytes
) -> KeyBlob:
    """Take in what was wrapped to `parent` (TPM2B_PUBLIC, TPM2B_PRIVATE, TPM2B_ENCRYPTED_SECRET), to be
    kept.

    DeviceError "wrong_parent" when it was wrapped to another key or is damaged.
    """
    with authorized(tpm, parent) as session, explained("import the object"):
        private = tpm.esapi.import_(
            parent.handle,
            TPM2B_DATA(),
            TPM2B_PUBLIC.unmarshal(public)[0],
            TPM2B_PRIVATE.unmarshal(duplicate)[0],
            TPM2B_ENCRYPTED_SECRET.unmarshal(encrypted_seed)[0],
            TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
            session1=session,
        )
        return KeyBlob(public, bytes(private.marshal()))


def unseal(tpm: Connection, parent: LoadedKey, blob: KeyBlob, registers: PcrSelection) -> bytes:
    """The secret, if the registers are those that it was sealed to; DeviceError "policy_failed" if not."""
    with loaded(tpm, parent, blob) as key:

        def use(session: Any) -> bytes:
            with explained("unseal the secret"):
                return bytes(tpm.esapi.unseal(key.handle, session1=session))

        return while_registers_hold(tpm, registers, key.public.name_alg, use, salt=parent)


def sign(
    tpm: Connection,
    key: LoadedKey,
    message: bytes,
    *,
    registers: PcrSelection | None = None,
    scheme: str | None = None,
) -> bytes:
    """The JWS signature value of `key` over `message`: r‖s, or the RSA signature.

    `registers` for a key that was sealed to them; `scheme` ("rsassa", "rsapss", with SHA-256) for one
    that has none of its own.
    """
    hash, listed = _scheme(key.public, scheme)
    ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL, digest=b"")
    digest = hash.digest(message)

    def use(session: Any) -> bytes:
        with explained("sign"):
            made = tpm.esapi.sign(key.handle, digest, listed, ticket, session1=session)
            return bytes(made.marshal())

    signature = parse_signature(_authorized_use(tpm, key, registers, use))
    if signature.value:
        return signature.value
    size = CURVES_BY_NAME[key.public.curve or ""].size
    return signature.r.to_bytes(size) + signature.s.to_bytes(size)


def hmac(tpm: Connection, key: LoadedKey, message: bytes, *, registers: PcrSelection | None = None) -> bytes:
    """HMAC-SHA-256 of at most 1024 bytes under a key that was sealed."""

    def use(session: Any) -> bytes:
        with explained("compute the HMAC"):
            return bytes(tpm.esapi.hmac(key.handle, message, TPM2_ALG.NULL, session1=session))

    return _authorized_use(tpm, key, registers, use)


def _authorized_use(tpm: Connection, key: LoadedKey, registers: PcrSelection | None, use: Any) -> bytes:
    if registers is None:
        return bytes(use(ESYS_TR.PASSWORD))
    return bytes(while_registers_hold(tpm, registers, key.public.name_alg, use))


def _scheme(public: PublicArea, wanted: str | None) -> tuple[Hash, TPMT_SIG_SCHEME]:
    """The hash to sign over and what the TPM is to be told."""
    own = public.scheme
    if own is not None and own.hash is not None:
        if wanted not in (None, own.name):
            raise DeviceError("scheme_mismatch", f"The key signs by {own.name}, not by {wanted}.")
        return own.hash, TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
    if wanted not in _SCHEMES:
        known = ", ".join(_SCHEMES)
        raise DeviceError("scheme_needed", f"The key has no scheme of its own; name one of {known}.")
    chosen = TPMT_SIG_SCHEME(scheme=_SCHEMES[wanted])
    chosen.details.any.hashAlg = SHA256.id
    return SHA256, chosen
