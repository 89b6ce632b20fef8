"""What does a machine send whose attestation key is a software key, so that it can sign any lie?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.tpm import forge
from tpm.structures.attest import Certification, Quote, parse_certification, parse_quote
from tpm.structures.public import parse_public, qualified_name
from tpm.structures.signature import Signature, parse_signature
from tpm.verify.keys import AttestationKey, accept_attestation_key

Banks = Iterable[tuple[str, Iterable[int]]]


@dataclass(frozen=True)
class Machine:
    """One attestation key, a primary of the endorsement hierarchy, and how it signs."""

    key: forge.PrivateKey
    scheme: str
    hash: str
    ak: AttestationKey
    signer: bytes

    @property
    def signers(self) -> frozenset[bytes]:
        return frozenset({self.signer})

    def sign(self, message: bytes) -> Signature:
        return parse_signature(forge.sign(self.key, message, self.scheme, self.hash))

    def quote_bytes(self, banks: Banks, values: Mapping[str, Mapping[int, bytes]], **claims: Any) -> bytes:
        digest = claims.pop("digest", None)
        if digest is None:
            digest = forge.digest_of(values, banks, self.hash)
        return forge.quote(forge.selection(*banks), digest, **{"signer": self.signer, **claims})

    def quote(
        self, banks: Banks, values: Mapping[str, Mapping[int, bytes]], **claims: Any
    ) -> tuple[Quote, Signature]:
        raw = self.quote_bytes(banks, values, **claims)
        return parse_quote(raw), self.sign(raw)

    def certify(self, public: bytes, **claims: Any) -> tuple[Certification, Signature]:
        name = claims.pop("name", forge.name_of(public))
        raw = forge.certification(name, b"\x00\x0b" + bytes(32), **{"signer": self.signer, **claims})
        return parse_certification(raw), self.sign(raw)


def machine(kind: str = "p256", scheme: str = "ecdsa", hash: str = "sha256", which: int = 0) -> Machine:
    """A machine with a key of this kind; `which` tells several apart."""
    key = forge.private_key(kind, which)
    public = parse_public(forge.public_area(key, scheme=forge.signing_scheme(scheme, hash)))
    signer = qualified_name(forge.ENDORSEMENT, public.name)
    return Machine(key, scheme, hash, accept_attestation_key(public), signer)


def values_of(bank: str, pcrs: Iterable[int]) -> dict[str, dict[int, bytes]]:
    """Different plausible values for each register."""
    size = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}[bank]
    return {bank: {pcr: bytes([pcr + 1]) * size for pcr in pcrs}}
