"""What may a device say, member by member? The request bodies of `/v1`, strict and frozen (DESIGN of the
protocol: README).

Bytes arrive as canonical base64 and are `bytes` from here on. Unknown members, other types and other
spellings of the same value are refused with a JSON pointer; nothing here knows whether what is said is true.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from attestd.wire import Problem, b64, join

_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_REGISTER = re.compile(r"0|[1-9]|1[0-9]|2[0-3]")
MAX_CREDENTIALS = 16
MAX_SEALED_KEYS = 16
MAX_CERTIFIED = 32
NONCE_SIZE = 32


def _base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise PydanticCustomError("malformed", "must be base64 text")
    try:
        return b64(value, "it")
    except Problem as problem:
        raise PydanticCustomError(problem.code, "must be canonical base64 with padding") from None


def _hex(value: object) -> bytes:
    if not isinstance(value, str) or _HEX.fullmatch(value) is None:
        raise PydanticCustomError("malformed", "must be lower-case hex")
    return bytes.fromhex(value)


def _register(value: object) -> int:
    if not isinstance(value, str) or _REGISTER.fullmatch(value) is None:
        raise PydanticCustomError("malformed", "a register is written 0 to 23, without leading zeros")
    return int(value)


def _one(value: object) -> int:
    if value.__class__ is not int or value != 1:
        raise PydanticCustomError("malformed", "must be the number 1")
    return 1


Base64 = Annotated[
    bytes, BeforeValidator(_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
Hex = Annotated[
    bytes, BeforeValidator(_hex), WithJsonSchema({"type": "string", "pattern": "^([0-9a-f]{2})+$"})
]
Register = Annotated[int, BeforeValidator(_register), WithJsonSchema({"type": "string"})]
Version = Annotated[int, BeforeValidator(_one), WithJsonSchema({"const": 1})]
DeviceId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Bank = Literal["sha1", "sha256", "sha384", "sha512"]


class Body(BaseModel):
    """A JSON object with exactly the members of its model."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class EnrollmentBody(Body):
    """`POST /v1/enrollments`: the keys of a TPM and what its maker says of them."""

    ek_public: Base64
    ek_certificate: Base64 | None = None
    ek_chain: list[Base64] = Field(default=[], max_length=8)
    ak_public: Base64
    hostname: Annotated[str, Field(max_length=253, pattern=r"^[\x20-\x7e]*$")] | None = None


class ActivationBody(Body):
    """`POST /v1/activations`: the proof that the activated secret came out of that TPM."""

    enrollment: Annotated[str, Field(min_length=1, max_length=512 * 1024)]
    proof: Base64


class ChallengeBody(Body):
    """`POST /v1/challenges`: whose challenge this is to be."""

    device_id: DeviceId


class QuoteParts(Body):
    """TPMS_ATTEST (without a size) and TPMT_SIGNATURE."""

    attest: Base64
    signature: Base64


class CertifiedParts(Body):
    """A key (TPM2B_PUBLIC) and what TPM2_Certify says of it."""

    public: Base64
    attest: Base64
    signature: Base64


class LogDigest(Body):
    """A log that the service has seen, by the SHA-256 of its bytes."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AttestationBody(Body):
    """`POST /v1/attestations`: the signed request, the quote that covers it, and what the quote's digests
    stand for."""

    request: Base64
    quote: QuoteParts
    pcrs: dict[Bank, dict[Register, Hex]] = Field(max_length=4)
    event_log: Base64 | LogDigest | None = None
    userspace_log: Base64 | None = None
    ima_log: Base64 | None = None
    certified: list[CertifiedParts] = Field(default=[], max_length=MAX_CERTIFIED)
    proofs: list[Base64 | None] = Field(default=[], max_length=MAX_CERTIFIED)


class KeyName(Body):
    """A key in the TPM, by its Name (two bytes of algorithm and a digest)."""

    name: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{2}){22,66}$")]


class CredentialRequest(Body):
    """One credential: its format, the agent it is for, and the key that it is to be bound to."""

    format: Literal["x509-svid", "wit-svid", "jwt-svid", "client-attestation"]
    agent: Name
    key: dict[str, Any] | None = None
    audience: list[Annotated[str, Field(min_length=1, max_length=2048)]] = Field(default=[], max_length=16)


class SealedKeyRequest(Body):
    """One sealed key of the policy, and the storage key (or the EK) that it is to be wrapped for."""

    name: Name
    parent: Literal["ek"] | KeyName


class AttestationRequest(Body):
    """What the TPM signed: the JSON object whose SHA-256 is the quote's extraData."""

    v: Version
    purpose: Literal["attest"]
    server: Annotated[str, Field(min_length=1, max_length=2048)]
    nonce: Base64
    device_id: DeviceId
    boot_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")] | None = None
    ima_from: Annotated[int, Field(ge=0, lt=2**31)] = 0
    credentials: list[CredentialRequest] = Field(default=[], max_length=MAX_CREDENTIALS)
    sealed_keys: list[SealedKeyRequest] = Field(default=[], max_length=MAX_SEALED_KEYS)


Model = TypeVar("Model", bound=BaseModel)


def read(model: type[Model], members: Mapping[str, Any], *, at: str = "") -> Model:
    """The typed value; Problem `malformed` or `noncanonical` with a pointer below `at` for the first thing
    that is wrong."""
    try:
        return model.model_validate(members)
    except ValidationError as error:
        # The branches of a union stand side by side; of thousands of faults the first few are enough.
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:8]
    pointers = [_pointer(at, fault["loc"]) for fault in faults]
    first = pointers[0]
    # The branch that got furthest is what was meant.
    within = [place for place, pointer in enumerate(pointers) if f"{pointer}/".startswith(f"{first}/")]
    chosen = max(within, key=lambda place: pointers[place].count("/"))
    pointer, fault = pointers[chosen], faults[chosen]
    code = "noncanonical" if fault["type"] == "noncanonical" else "malformed"
    raise Problem(code, f"{pointer or 'The body'}: {fault['msg']}.", pointer=pointer, cause=fault["type"])


def _pointer(at: str, location: tuple[int | str, ...]) -> str:
    for part in location:
        if not _is_union_branch(part):
            at = join(at, part)
    return at


def _is_union_branch(part: object) -> bool:
    """Pydantic names the branch of a union in the location; a JSON pointer does not."""
    return isinstance(part, str) and (
        part in ("LogDigest", "KeyName", "[key]")
        or part.startswith(("function-", "literal[", "constrained-", "dict["))
    )
