"""How does one talk to the TPM and leave nothing behind in it?

A TPM without a resource manager has three slots for objects and a few for sessions: whatever is loaded or
started here lives in a context manager that flushes it.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_SE, TPMA_SESSION
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import TPMT_SYM_DEF, TPMU_SYM_KEY_BITS, TPMU_SYM_MODE

from tpm.device.refusals import explained
from tpm.structures.algorithms import Hash
from tpm.structures.public import PublicArea

# The library prints to stderr what it also raises, and has no other switch than this, read at its first
# message.
os.environ.setdefault("TSS2_LOG", "all+none")


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """An object that is loaded now, while its context manager lasts: ESAPI's handle and its public area."""

    handle: Any
    public: PublicArea

    @property
    def name(self) -> bytes:
        return self.public.name


class Connection:
    """An open way to one TPM. Not for several threads at once."""

    def __init__(self, tcti: str) -> None:
        """`tcti` as tpm2-tools take it: "device:/dev/tpmrm0", "swtpm:path=…". Raises DeviceError."""
        self.tcti = tcti
        with explained(f"open at {tcti}"):
            self.esapi: Any = ESAPI(tcti)

    def close(self) -> None:
        if not self.esapi.is_closed():
            self.esapi.close()

    @contextmanager
    def flushed(self, handle: Any) -> Iterator[Any]:
        """Flush this transient object or session at the end, whatever happens."""
        try:
            yield handle
        finally:
            # After a power cycle it is gone already; what went wrong inside is the better message.
            with suppress(TSS2_Exception):
                self.esapi.flush_context(handle)

    @contextmanager
    def known(self, tpm_handle: int) -> Iterator[Any]:
        """A persistent object or NV index, as ESAPI knows it; it stays in the TPM."""
        with explained(f"find {tpm_handle:#010x}"):
            handle = self.esapi.tr_from_tpmpublic(tpm_handle)
        try:
            yield handle
        finally:
            with suppress(TSS2_Exception):
                self.esapi.tr_close(handle)

    @contextmanager
    def policy_session(self, hash: Hash, *, salt: LoadedKey | None = None) -> Iterator[Any]:
        """A policy session with nothing asserted yet.

        With `salt`, a loaded restricted decryption key, the first parameter of the answer travels
        encrypted, so that a released secret is not to be read on the wires to the TPM.
        """
        cipher = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
        key = ESYS_TR.NONE
        if salt is not None and salt.public.symmetric is not None:
            bits = TPMU_SYM_KEY_BITS(aes=salt.public.symmetric.bits)
            cipher = TPMT_SYM_DEF(algorithm=TPM2_ALG.AES, keyBits=bits, mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB))
            key = salt.handle
        with explained("start a session"):
            session = self.esapi.start_auth_session(key, ESYS_TR.NONE, TPM2_SE.POLICY, cipher, hash.id)
        with self.flushed(session):
            if salt is not None:
                encrypted = TPMA_SESSION.ENCRYPT | TPMA_SESSION.CONTINUESESSION
                self.esapi.trsess_set_attributes(session, encrypted)
            yield session

    def capability(self, capability: int, first: int, count: int) -> bytes:
        """The content of TPMS_CAPABILITY_DATA after its type: a list, its length in front.

        Marshalled at once: what tpm2-pytss gives out of a capability does not survive the capability
        itself.
        """
        with explained("tell its capabilities"):
            _, data = self.esapi.get_capability(capability, first, count)
        return bytes(data.marshal())[4:]

    def handles(self, first: int, last: int) -> list[int]:
        """The handles from `first` to `last` that exist, ascending."""
        found: list[int] = []
        while True:
            raw = self.capability(TPM2_CAP.HANDLES, found[-1] + 1 if found else first, 64)
            (count,) = struct.unpack_from(">I", raw)
            more = [handle for handle in struct.unpack_from(f">{count}I", raw, 4) if first <= handle <= last]
            found += more
            if not more or len(more) < count or count < 64:
                return found

    def properties(self, first: int, count: int) -> dict[int, int]:
        """TPM_PT values by number, from `first` on."""
        raw = self.capability(TPM2_CAP.TPM_PROPERTIES, first, count)
        (found,) = struct.unpack_from(">I", raw)
        pairs = struct.unpack_from(f">{2 * found}I", raw, 4)
        return dict(zip(pairs[::2], pairs[1::2], strict=True))
