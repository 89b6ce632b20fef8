"""Which devices does this inventory name?

One JSON object a line: `device_id` or `ek_certificate` (base64 of DER, or PEM), and if wanted `name` and
`labels`. The whole file is refused at the first line that is not in order. A certificate says here which
machine is meant; whether its maker is trusted is judged when the machine enrols.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attestd.cli.failures import Failure
from attestd.policy.labels import SEGMENT, label_value_fault
from attestd.wire import Problem, b64, load_json
from tpm.errors import AttestationError
from tpm.verify.certificate_reader import read_certificate
from tpm.verify.device_id import device_identifier

MAX_FILE = 64 << 20
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")
_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*", re.ASCII)
_KNOWN = ("device_id", "ek_certificate", "name", "labels")


@dataclass(frozen=True, slots=True)
class Imported:
    """One machine of the inventory; an empty name leaves the choice to the store."""

    line: int
    device_id: str
    name: str
    labels: Mapping[str, str]
    certificate: bytes | None = None


def read_inventory(raw: bytes) -> list[Imported]:
    """Every machine, each once; Failure names the line."""
    if len(raw) > MAX_FILE:
        raise Failure(f"the file has {len(raw)} bytes; import at most {MAX_FILE} at once")
    found = list(_machines(raw))
    if not found:
        raise Failure("the file names no device; write one JSON object a line")
    seen: dict[str, int] = {}
    for machine in found:
        for key in filter(None, (machine.device_id, machine.name)):
            if key in seen:
                raise fault(machine.line, f"{key} is named on line {seen[key]} already; remove one")
            seen[key] = machine.line
    return found


def fault(line: int, what: str) -> Failure:
    """Nothing of a file is imported when one line is not in order."""
    return Failure(f"nothing imported: line {line}: {what}")


def name_fault(name: str) -> str | None:
    """Why an operator cannot call a device so, or None."""
    if _IDENTIFIER.fullmatch(name):
        return f"{name} is an identifier; choose a name"
    if SEGMENT.fullmatch(name) is None:
        return f"{name[:80]!r} is no name: 1 to 63 letters, digits, '.', '_' and '-', and no '.' in front"
    return None


def label_fault(key: str, value: str) -> str | None:
    """Why this is no label, or None."""
    if SEGMENT.fullmatch(key) is None:
        return f"{key[:80]!r} is no label: 1 to 63 letters, digits, '.', '_' and '-', and no '.' in front"
    reason = label_value_fault(value)
    return None if reason is None else f"{key}: {reason}"


def _machines(raw: bytes) -> Iterator[Imported]:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            yield _machine(number, line)


def _machine(number: int, line: bytes) -> Imported:
    try:
        members = load_json(line)
        unknown = [key for key in members if key not in _KNOWN]
        if unknown:
            raise fault(number, f"{unknown[0]!r:.80} is not known; known are {', '.join(_KNOWN)}")
        device_id, certificate = _machine_of(members)
        return Imported(number, device_id, _name(members), _labels(members), certificate)
    except Problem as problem:
        raise fault(number, problem.detail) from None
    except AttestationError as error:
        raise fault(number, error.detail) from None
    except ValueError as error:
        raise fault(number, str(error)) from None


def _machine_of(members: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """Its identifier, and the certificate (DER) if that is what names it."""
    stated, certificate = members.get("device_id"), members.get("ek_certificate")
    if (stated is None) == (certificate is None):
        raise ValueError("give device_id or ek_certificate, one of the two")
    if certificate is not None:
        der = _der(_text(certificate, "ek_certificate"))
        return device_identifier(read_certificate(der).key), der
    if _IDENTIFIER.fullmatch(_text(stated, "device_id")) is None:
        raise ValueError("device_id is no identifier: 64 lower-case hex digits")
    return str(stated), None


def _der(text: str) -> bytes:
    pem = _PEM.fullmatch(text)
    return b64("".join(pem[1].split()) if pem else text, "ek_certificate")


def _name(members: Mapping[str, Any]) -> str:
    name = members.get("name")
    if name is None:
        return ""
    reason = name_fault(_text(name, "name"))
    if reason is not None:
        raise ValueError(reason)
    return str(name)


def _labels(members: Mapping[str, Any]) -> dict[str, str]:
    labels = members.get("labels")
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise ValueError("labels must be an object of text")
    for key, value in labels.items():
        reason = label_fault(key, _text(value, f"labels.{key:.80}"))
        if reason is not None:
            raise ValueError(reason)
    return labels


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")
    return value
