"""What can the agent ask of its machine's TPM?

One class over the modules beside it. Loaded keys live in context managers; nothing stays in the TPM
afterwards. Each method raises DeviceError with one word for programs and one sentence for people.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tpm.device import endorsement, evidence, keys, leavings, objects, properties, registers
from tpm.device.connection import Connection, LoadedKey
from tpm.device.endorsement import Endorsement
from tpm.device.evidence import CertificationEvidence, QuoteEvidence
from tpm.device.keys import KeyBlob
from tpm.device.properties import Properties
from tpm.errors import DeviceError
from tpm.structures.pcrs import PcrSelection


class Device:
    """The machine's TPM, open while the context lasts. One thread at a time."""

    def __init__(self, tcti: str) -> None:
        """`tcti` as tpm2-tools take it: "device:/dev/tpmrm0", "swtpm:path=…". Opened on entering the
        context.
        """
        self.tcti = tcti
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        self._connection = Connection(self.tcti)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _tpm(self) -> Connection:
        if self._connection is None:
            raise DeviceError("tpm_not_open", "The TPM is open only inside `with Device(…)`.")
        return self._connection

    # Which TPM is this, and what does it hold?

    def properties(self) -> Properties:
        """Maker, firmware version and lockout, as the TPM says them, unsigned."""
        return properties.read_properties(self._tpm)

    def banks(self) -> tuple[str, ...]:
        """The PCR banks in use: "sha1", "sha256", "sha384", "sha512"."""
        return registers.banks(self._tpm)

    def allocation(self) -> dict[str, tuple[int, ...]]:
        """The registers of each bank, of those too that are not in use."""
        return registers.allocation(self._tpm)

    def read_pcrs(self, selection: PcrSelection) -> dict[str, dict[int, bytes]]:
        """The registers' values at one moment, by bank and number, unsigned."""
        return registers.read_registers(self._tpm, selection)

    def leavings(self) -> tuple[int, ...]:
        """The handles of what others have loaded or left, as far as it is to be seen."""
        return leavings.leavings(self._tpm)

    def flush_leavings(self) -> int:
        """Flush what programs left that were killed; how many objects and sessions that was. Only for who
        knows that nobody else is at the TPM now."""
        return leavings.flush_leavings(self._tpm)

    # Who is it?

    def endorsement(self, kind: str | None = None) -> Endorsement:
        """Its endorsement key with certificate and chain from NV: "p256", "rsa" or a template's name
        ("H-3").

        Without a kind, the first that has a certificate, otherwise the P-256 one.
        """
        return endorsement.endorsement(self._tpm, kind)

    @contextmanager
    def ek(self, kind: str) -> Iterator[LoadedKey]:
        """The endorsement key, loaded; `Endorsement.kind` or one of the kinds above."""
        with endorsement.endorsement_key(self._tpm, kind) as key:
            yield key

    # Keys

    def create_ak(self, kind: str = "p256") -> bytes:
        """The recipe of a new attestation key ("p256", "p384", "rsa", "rsapss") under the endorsement
        hierarchy.

        Keep the recipe (it is no secret); nothing of the key stays in the TPM.
        """
        return keys.create_attestation_key(self._tpm, kind)

    @contextmanager
    def ak(self, recipe: bytes) -> Iterator[LoadedKey]:
        """The attestation key of a recipe, loaded; DeviceError "ak_changed", "recipe_damaged"."""
        with keys.attestation_key(self._tpm, recipe) as key:
            yield key

    @contextmanager
    def storage_key(self, kind: str = "p256") -> Iterator[LoadedKey]:
        """The storage root ("p256", "rsa") of the owner hierarchy, loaded; the same until the TPM is
        cleared.
        """
        with keys.storage_key(self._tpm, kind) as key:
            yield key

    def create_key(self, kind: str = "p256") -> KeyBlob:
        """A new credential key ("p256" ES256, "p384" ES384, "rsapss" PS256) born in the TPM, to be kept
        as a file.
        """
        with keys.storage_key(self._tpm, "p256") as parent:
            return keys.create_key(self._tpm, parent, kind)

    @contextmanager
    def key(self, blob: KeyBlob, parent_kind: str = "p256") -> Iterator[LoadedKey]:
        """A child of the storage key, loaded, at the cost of one object slot."""
        with keys.loaded_from_storage(self._tpm, blob, parent_kind) as key:
            yield key

    @contextmanager
    def load(self, parent: LoadedKey, blob: KeyBlob) -> Iterator[LoadedKey]:
        """A child of a loaded parent (endorsement or storage key), loaded."""
        with keys.loaded(self._tpm, parent, blob) as key:
            yield key

    def sign(
        self,
        key: LoadedKey,
        message: bytes,
        *,
        registers: PcrSelection | None = None,
        scheme: str | None = None,
    ) -> bytes:
        """The JWS signature value over `message` (hashed here): r‖s, or the RSA signature.

        `registers`: what a sealed key was sealed to. `scheme`: "rsassa" or "rsapss" for a key that has
        none.
        """
        return objects.sign(self._tpm, key, message, registers=registers, scheme=scheme)

    # Evidence

    def quote(self, ak: LoadedKey, selection: PcrSelection, qualifying_data: bytes) -> QuoteEvidence:
        """TPMS_ATTEST, TPMT_SIGNATURE and the registers' values that belong to them."""
        return evidence.quote(self._tpm, ak, selection, qualifying_data)

    def certify(self, key: LoadedKey, ak: LoadedKey, qualifying_data: bytes) -> CertificationEvidence:
        """The attestation key says that `key` (a credential or a storage key) is in the same TPM."""
        return evidence.certify(self._tpm, key, ak, qualifying_data)

    def activate(self, ek: LoadedKey, ak: LoadedKey, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """The secret of an enrolment's challenge; DeviceError "wrong_parent" if it is not for these keys."""
        return evidence.activate(self._tpm, ek, ak, id_object, encrypted_secret)

    # What was sealed to it

    def import_object(
        self, parent: LoadedKey, public: bytes, duplicate: bytes, encrypted_seed: bytes
    ) -> KeyBlob:
        """Take in a sealed key that was wrapped to `parent`; keep the result as a file."""
        return objects.import_object(self._tpm, parent, public, duplicate, encrypted_seed)

    def unseal(self, parent: LoadedKey, blob: KeyBlob, registers: PcrSelection) -> bytes:
        """The secret; DeviceError "policy_failed" when the registers are not those it was sealed to."""
        return objects.unseal(self._tpm, parent, blob, registers)

    def hmac(self, key: LoadedKey, message: bytes, *, registers: PcrSelection | None = None) -> bytes:
        """HMAC-SHA-256 of at most 1024 bytes under a sealed "hmac-sha256" key."""
        return objects.hmac(self._tpm, key, message, registers=registers)
