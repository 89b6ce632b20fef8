"""What does the device claim? The body of an attestation, taken apart once; nothing in here is believed yet.

Structures that are none, or not canonical, are refused here (400). A structure that is well formed and says
something that cannot be so is kept as the EvidenceError that it is, and raised where its turn comes (403), so
that the order of answers is the protocol's and not the parser's.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from attestd.issue.jwk import BoundKey, read_jwk
from attestd.protocol import (
    NONCE_SIZE,
    AttestationBody,
    AttestationRequest,
    CertifiedParts,
    CredentialRequest,
    KeyName,
    LogDigest,
    read,
)
from attestd.wire import Problem, load_json, to_problem
from tpm.errors import EvidenceError, StructureError
from tpm.structures.algorithms import hash_by_name
from tpm.structures.attest import Certification, Quote, parse_certification, parse_quote
from tpm.structures.public import PublicArea, parse_sized_public
from tpm.structures.signature import Signature, parse_signature

MAX_REQUEST = 1 << 20
MAX_STRUCTURE = 4096

Parsed = TypeVar("Parsed")
RequestedKey = BoundKey | bytes | None
"""A key that software holds, the Name of one in the TPM, or (for a jwt-svid) none."""


@dataclass(frozen=True, slots=True)
class ClaimedKey:
    """One entry of `certified`, with the proof at its index."""

    public: PublicArea
    certification: Certification | EvidenceError
    signature: Signature
    proof: bytes | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A well-formed attestation, unverified."""

    request: AttestationRequest
    request_bytes: bytes
    request_digest: bytes
    quote: Quote | EvidenceError
    signature: Signature
    pcrs: Mapping[str, Mapping[int, bytes]]
    keys: tuple[RequestedKey, ...]
    parents: tuple[bytes | None, ...]
    certified: Mapping[bytes, ClaimedKey]
    event_log: bytes | LogDigest | None
    userspace_log: bytes | None
    ima_log: bytes | None
    """Logs as they came; they are read once the quote is known to be the device's."""
    evidence_digest: str
    """SHA-256 over request, quote and signature: what an audit record calls this evidence."""


def read_claim(body: AttestationBody) -> Claim:
    """Problem `malformed`, `noncanonical` or `too_large`, with a pointer into the body."""
    request = _read_request(body.request)
    keys = tuple(
        _read_key(wanted, f"/request/credentials/{index}") for index, wanted in enumerate(request.credentials)
    )
    parents = tuple(
        bytes.fromhex(wanted.parent.name) if isinstance(wanted.parent, KeyName) else None
        for wanted in request.sealed_keys
    )
    quote, signature = body.quote.attest, body.quote.signature
    return Claim(
        request=request,
        request_bytes=body.request,
        request_digest=hashlib.sha256(body.request).digest(),
        quote=_structure(parse_quote, quote, "/quote/attest"),
        signature=_certain(_structure(parse_signature, signature, "/quote/signature")),
        pcrs=_read_pcrs(body),
        keys=keys,
        parents=parents,
        certified=_read_certified(body, named=_names(keys, parents)),
        event_log=body.event_log,
        userspace_log=body.userspace_log,
        ima_log=body.ima_log,
        evidence_digest=hashlib.sha256(b"".join((body.request, quote, signature))).hexdigest(),
    )


def _read_request(raw: bytes) -> AttestationRequest:
    if len(raw) > MAX_REQUEST:
        raise Problem("too_large", f"The request has {len(raw)} bytes; at most {MAX_REQUEST} are read.")
    request = read(AttestationRequest, load_json(raw, pointer="/request"), at="/request")
    if len(request.nonce) != NONCE_SIZE:
        detail = f"/request/nonce: a nonce has {NONCE_SIZE} bytes, this one {len(request.nonce)}."
        raise Problem("malformed", detail, pointer="/request/nonce", cause="nonce_missing")
    return request


def _read_key(wanted: CredentialRequest, at: str) -> RequestedKey:
    """The key that the credential is to be bound to, of the kind that its format needs."""
    if wanted.format == "jwt-svid":
        _demand(wanted.key is None, f"{at}/key", "a jwt-svid is bound to no key; leave it out")
        _demand(bool(wanted.audience), f"{at}/audience", "a jwt-svid needs an audience")
        _demand(
            len(set(wanted.audience)) == len(wanted.audience), f"{at}/audience", "names an audience twice"
        )
        return None
    _demand(not wanted.audience, f"{at}/audience", "only a jwt-svid has an audience; leave it out")
    if wanted.key is None:
        detail = f"{at}/key: {wanted.format} needs the key that it is bound to."
        raise Problem("malformed", detail, pointer=f"{at}/key")
    if "name" in wanted.key:
        return bytes.fromhex(read(KeyName, wanted.key, at=f"{at}/key").name)
    try:
        return read_jwk(wanted.key)
    except StructureError as error:
        raise to_problem(error, f"{at}/key") from None


def _demand(holds: bool, pointer: str, sentence: str) -> None:
    if not holds:
        raise Problem("malformed", f"{pointer}: {sentence}.", pointer=pointer)


def _read_pcrs(body: AttestationBody) -> Mapping[str, Mapping[int, bytes]]:
    for bank, values in body.pcrs.items():
        size = hash_by_name(bank).size
        for register, value in values.items():
            pointer = f"/pcrs/{bank}/{register}"
            _demand(len(value) == size, pointer, f"a value of {bank} has {size} bytes, this one {len(value)}")
    return {str(bank): values for bank, values in body.pcrs.items()}


def _names(keys: tuple[RequestedKey, ...], parents: tuple[bytes | None, ...]) -> frozenset[bytes]:
    return frozenset(name for name in (*keys, *parents) if isinstance(name, bytes))


def _read_certified(body: AttestationBody, *, named: frozenset[bytes]) -> Mapping[bytes, ClaimedKey]:
    """The certified keys by their computed Names; one that nobody names, or twice the same, is malformed."""
    _demand(len(body.proofs) <= len(body.certified), "/proofs", "there are more proofs than certified keys")
    proofs = [*body.proofs, *([None] * (len(body.certified) - len(body.proofs)))]
    found: dict[bytes, ClaimedKey] = {}
    for index, (parts, proof) in enumerate(zip(body.certified, proofs, strict=True)):
        at = f"/certified/{index}"
        key = _read_certified_key(parts, proof, at)
        name = key.public.name
        _demand(name in named, at, "nobody in the request names this key")
        _demand(name not in found, at, "this key is certified twice")
        found[name] = key
    return found


def _read_certified_key(parts: CertifiedParts, proof: bytes | None, at: str) -> ClaimedKey:
    return ClaimedKey(
        public=_certain(_structure(parse_sized_public, parts.public, f"{at}/public")),
        certification=_structure(parse_certification, parts.attest, f"{at}/attest"),
        signature=_certain(_structure(parse_signature, parts.signature, f"{at}/signature")),
        proof=proof,
    )


def _structure(parse: Callable[[bytes], Parsed], raw: bytes, pointer: str) -> Parsed | EvidenceError:
    if len(raw) > MAX_STRUCTURE:
        detail = f"{pointer}: {len(raw)} bytes are more than any such structure has."
        raise Problem("malformed", detail, pointer=pointer, cause="oversized")
    try:
        return parse(raw)
    except StructureError as error:
        raise to_problem(error, pointer) from None
    except EvidenceError as error:
        return error


def _certain(parsed: Parsed | EvidenceError) -> Parsed:
    """For parsers that decide nothing and therefore raise nothing but StructureError."""
    if isinstance(parsed, EvidenceError):
        raise TypeError("this parser is not to judge what it reads")
    return parsed
