"""How is a refusal told, and what counts as well-formed JSON and base64 here?

No HTTP, no pydantic, no device state: the agent and the service share this module.
"""

import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from tpm.errors import AttestationError, NoncanonicalError, StructureError

STATUS = {
    "malformed": 400,
    "noncanonical": 400,
    "unauthenticated": 401,
    "attestation_failed": 403,
    "evidence_incomplete": 403,
    "posture_rejected": 403,
    "no_policy": 403,
    "not_entitled": 403,
    "enrollment_refused": 403,
    "device_pending": 403,
    "device_banned": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "nonce_spent": 409,
    "nonce_expired": 409,
    "log_needed": 409,
    "identity_bound": 409,
    "conflict": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "slow_down": 429,
    "unavailable": 503,
}
"""Every code that an answer may carry, with its HTTP status."""

ONE_ANSWER = {"attestation_failed": "The evidence does not prove that this device made it for this request."}
"""Codes whose body is the same for every cause, so that it teaches nothing; the audit log has more."""

MAX_NESTING = 32
MAX_VALUES = 20_000
_INT_LIMIT = 2**63
_POINTER_LIMIT = 256


class Problem(Exception):
    """A request is refused; one of these becomes one `application/problem+json` answer and one audit record.

    `cause` is the finer word for the audit log and never leaves the service. `pointer` is a JSON pointer
    (RFC 6901) into the request. `retry_after` is in seconds. `recorded` says that whoever raised it has
    written its audit record already; `device_id` is set only where the device is proven, `claimed` names the
    device that an unproven request is about, and `evidence_sha256` what it brought.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        findings: Sequence[Mapping[str, Any]] | None = None,
        cause: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = STATUS[code]
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.findings = findings
        self.cause = cause
        self.retry_after = retry_after
        self.recorded = False
        self.device_id: str | None = None
        self.claimed: str | None = None
        self.evidence_sha256: str | None = None

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of RFC 9457 and ours."""
        told = {
            "type": f"urn:attestd:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": ONE_ANSWER.get(self.code, self.detail),
            "code": self.code,
            "request_id": request_id,
        }
        if self.code in ONE_ANSWER:
            return told
        if self.pointer is not None:
            told["pointer"] = self.pointer
        if self.findings is not None:
            told["findings"] = [dict(finding) for finding in self.findings]
        return told


def to_problem(error: AttestationError, pointer: str) -> Problem:
    """For what the sender built wrong. Evidence that lies has no pointer: its code is the verifier's."""
    match error:
        case NoncanonicalError():
            return Problem("noncanonical", str(error), pointer=pointer, cause=error.reason)
        case StructureError():
            return Problem("malformed", str(error), pointer=pointer, cause=error.reason)
    raise TypeError(f"{type(error).__name__} is not about how the bytes are built")


# JSON


class _Refused:
    """Stands in the tree where something was refused, so that its pointer can be found when it is needed."""

    __slots__ = ("member", "reason")

    def __init__(self, reason: str, member: str | None = None) -> None:
        self.reason = reason
        self.member = member


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                return _Refused("is given twice", name)
            seen.add(name)
    return members


def _integer(digits: str) -> Any:
    # Longer text is not converted at all: that would cost quadratic time.
    if len(digits) <= 20 and -_INT_LIMIT <= (value := int(digits)) < _INT_LIMIT:
        return value
    return _Refused("is an integer beyond 64 bits")


def _no_float(_: str) -> Any:
    return _Refused("is not an integer")


def _no_constant(name: str) -> Any:
    return _Refused(f"is {name}, which JSON does not have")


_decoder = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no_float, parse_constant=_no_constant
)
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def load_json(raw: bytes, *, pointer: str = "") -> dict[str, Any]:
    """A JSON object that has one meaning only; `pointer` is where these bytes stood in the request.

    Refused as `malformed`: other encodings than UTF-8, anything but an object, duplicate members, NaN and
    Infinity, fractions and exponents, integers beyond 64 bits, lone surrogates, NUL, nesting deeper than 32,
    and more than 20,000 values (a request has hundreds; megabytes of `[],` would cost seconds).
    """
    if raw.count(b",") > MAX_VALUES or raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise _malformed(pointer, f"has more than {MAX_VALUES} values")
    try:
        text = raw.decode("utf-8")
        document = _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise _malformed(pointer, f"is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _malformed(pointer, f"is nested deeper than {MAX_NESTING}") from None
    except json.JSONDecodeError as error:
        raise _malformed(pointer, f"is not JSON: {error.msg} at character {error.pos}") from None
    for place, reason in _objections(document, check_text="\\u" in text):
        raise _malformed(pointer + place, reason)
    if not isinstance(document, dict):
        raise _malformed(pointer, "is not a JSON object")
    return document


def _objections(document: Any, *, check_text: bool) -> Iterator[tuple[str, str]]:
    """Where and why the tree is refused. A source without `\\u` cannot hold NUL or a surrogate."""
    pending: list[tuple[Any, str, int]] = [(document, "", 1)]
    while pending:
        node, place, depth = pending.pop()
        if isinstance(node, _Refused):
            yield (place if node.member is None else join(place, node.member)), node.reason
        elif isinstance(node, str):
            if check_text and not _is_text(node):
                yield place, "holds NUL or a lone surrogate"
        elif not isinstance(node, dict | list):
            continue
        elif depth > MAX_NESTING:
            yield place, f"is nested deeper than {MAX_NESTING}"
        else:
            children = node.items() if isinstance(node, dict) else enumerate(node)
            for key, child in children:
                if check_text and isinstance(key, str) and not _is_text(key):
                    yield place, "has a member whose name holds NUL or a lone surrogate"
                if child.__class__ not in _PLAIN or check_text:
                    pending.append((child, join(place, key), depth + 1))


_PLAIN = frozenset({str, int, bool, type(None)})
_SURROGATE_OR_NUL = re.compile("[\0\ud800-\udfff]")


def _is_text(value: str) -> bool:
    return _SURROGATE_OR_NUL.search(value) is None


def _malformed(pointer: str, reason: str) -> Problem:
    return Problem("malformed", f"{pointer or 'The body'} {reason}.", pointer=pointer)


def join(pointer: str, key: str | int) -> str:
    """The JSON pointer of a member (RFC 6901), cut so that a sender's megabyte of a name is not sent back."""
    token = str(key).replace("~", "~0").replace("/", "~1")
    return _SURROGATE_OR_NUL.sub("\ufffd", f"{pointer}/{token}")[:_POINTER_LIMIT]


def dump_json(document: Any) -> bytes:
    """Compact, ASCII only (everything else is escaped), in the order given."""
    return _encoder.encode(document).encode("ascii")


# base64

_FOREIGN = re.compile(r"[^A-Za-z0-9+/=]")


def b64encode(value: bytes) -> str:
    """Standard alphabet, padded, one line."""
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def b64(value: str, pointer: str) -> bytes:
    """The bytes of canonical base64: standard alphabet, padded, zero trailing bits, nothing around it.

    What a lenient reader would still understand is `noncanonical`; what nobody could is `malformed`.
    """
    try:
        encoded = value.encode("ascii")
        decoded = binascii.a2b_base64(encoded)
    except (UnicodeEncodeError, binascii.Error):
        raise _bad_base64(value, pointer) from None
    if binascii.b2a_base64(decoded, newline=False) != encoded:
        raise _bad_base64(value, pointer)
    return decoded


def _bad_base64(value: str, pointer: str) -> Problem:
    meant = _FOREIGN.sub("", value.replace("-", "+").replace("_", "/")).partition("=")[0]
    if meant and len(meant) % 4 != 1:
        detail = f"{pointer} is not canonical base64 (standard alphabet, padded, zero trailing bits)."
        return Problem("noncanonical", detail, pointer=pointer, cause="base64")
    return Problem("malformed", f"{pointer} is not base64.", pointer=pointer, cause="base64")
