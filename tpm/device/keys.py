"""Which keys does the device use, and how do they come back after a restart?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE

from tpm.device import templates
from tpm.device.connection import Connection, LoadedKey
from tpm.device.endorsement import endorsement_session
from tpm.device.primary import create_primary
from tpm.device.refusals import explained
from tpm.errors import DeviceError, StructureError
from tpm.seal.wrap import sized
from tpm.structures.public import PUBLIC_LIMIT, PublicArea, parse_public, parse_sized_public
from tpm.structures.reader import Reader


@dataclass(frozen=True, slots=True)
class KeyBlob:
    """A key as it is kept outside the TPM: TPM2B_PUBLIC, and TPM2B_PRIVATE that only its parent can read."""

    public: bytes
    private: bytes

    @property
    def area(self) -> PublicArea:
        """The public area; StructureError when the bytes are damaged."""
        return parse_sized_public(self.public)


def create_attestation_key(tpm: Connection, kind: str) -> bytes:
    """A new attestation key; returns its recipe, with which this TPM, and no other, makes it again.

    The recipe is not secret: TPM2B template, TPM2B_PUBLIC of the key.
    """
    template = templates.attestation_key(kind)
    with create_primary(tpm, template, ESYS_TR.ENDORSEMENT) as key:
        return sized(template) + key.public.sized


@contextmanager
def attestation_key(tpm: Connection, recipe: bytes) -> Iterator[LoadedKey]:
    """The attestation key of this recipe, loaded. DeviceError "ak_changed" where the TPM makes another
    key.
    """
    template, expected = _read_recipe(recipe)
    with create_primary(tpm, template, ESYS_TR.ENDORSEMENT) as key:
        if key.public.raw != expected.raw:
            raise DeviceError(
                "ak_changed",
                "This TPM no longer makes the attestation key that was enrolled: it is another TPM, or its "
                "endorsement seed was changed. Enrol again.",
            )
        yield key


def attestation_public(recipe: bytes) -> PublicArea:
    """The public area of the key that a recipe makes, without asking the TPM."""
    return _read_recipe(recipe)[1]


@contextmanager
def storage_key(tpm: Connection, kind: str) -> Iterator[LoadedKey]:
    """The storage root in the owner hierarchy, loaded; the same key until the TPM is cleared."""
    with create_primary(tpm, templates.storage_key(kind), ESYS_TR.OWNER) as key:
        yield key


def create_key(tpm: Connection, parent: LoadedKey, kind: str) -> KeyBlob:
    """A new credential key, born in the TPM as a child of a storage key."""
    with explained("create a key"):
        template, _ = TPM2B_PUBLIC.unmarshal(sized(templates.credential_key(kind)))
        private, public, *_ = tpm.esapi.create(parent.handle, TPM2B_SENSITIVE_CREATE(), template)
        return KeyBlob(bytes(public.marshal()), bytes(private.marshal()))


@contextmanager
def loaded(tpm: Connection, parent: LoadedKey, blob: KeyBlob) -> Iterator[LoadedKey]:
    """A child of `parent`, loaded; `parent` may be flushed afterwards."""
    handle = load(tpm, parent, blob)
    with tpm.flushed(handle):
        yield LoadedKey(handle, blob.area)


@contextmanager
def loaded_from_storage(tpm: Connection, blob: KeyBlob, kind: str) -> Iterator[LoadedKey]:
    """A child of the storage key, loaded, with the storage key's own slot free again."""
    with storage_key(tpm, kind) as parent:
        handle = load(tpm, parent, blob)
    with tpm.flushed(handle):
        yield LoadedKey(handle, blob.area)


def load(tpm: Connection, parent: LoadedKey, blob: KeyBlob) -> Any:
    """TPM2_Load; the caller flushes the handle."""
    with authorized(tpm, parent) as session, explained("load the key"):
        private, _ = TPM2B_PRIVATE.unmarshal(blob.private)
        public, _ = TPM2B_PUBLIC.unmarshal(blob.public)
        return tpm.esapi.load(parent.handle, private, public, session1=session)


@contextmanager
def authorized(tpm: Connection, key: LoadedKey) -> Iterator[Any]:
    """What authorizes one use of `key` as a parent: its policy for an endorsement key, its empty password
    else.
    """
    if key.public.auth_policy:
        with endorsement_session(tpm, key) as session:
            yield session
    else:
        yield ESYS_TR.PASSWORD


def _read_recipe(recipe: bytes) -> tuple[bytes, PublicArea]:
    try:
        reader = Reader(recipe, "attestation key's recipe")
        template, public = reader.sized(PUBLIC_LIMIT), reader.sized(PUBLIC_LIMIT)
        reader.end()
        return template, parse_public(public)
    except StructureError as error:
        raise DeviceError(
            "recipe_damaged",
            f"The stored recipe of the attestation key is damaged: {error.detail} Enrol again.",
        ) from error
