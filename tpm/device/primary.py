"""How does a key come out of a hierarchy's seed?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE

from tpm.device.connection import Connection, LoadedKey
from tpm.device.refusals import explained
from tpm.seal.wrap import sized
from tpm.structures.public import parse_sized_public


@contextmanager
def create_primary(tpm: Connection, template: bytes, hierarchy: Any) -> Iterator[LoadedKey]:
    """The primary key of `template` (TPMT_PUBLIC) in `hierarchy`: the same key each time, until the seed
    changes.
    """
    with explained("create the primary key"):
        wanted, _ = TPM2B_PUBLIC.unmarshal(sized(template))
        handle, public, *_ = tpm.esapi.create_primary(
            TPM2B_SENSITIVE_CREATE(), wanted, hierarchy, session1=ESYS_TR.PASSWORD
        )
    with tpm.flushed(handle):
        yield LoadedKey(handle, parse_sized_public(public.marshal()))
