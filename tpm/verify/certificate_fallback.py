"""What does this certificate say, whose DER cryptography refuses?

Genuine TPMs bear certificates that a strict parser of X.509 turns away: sets out of order (Nuvoton), default
values that are written out (Intel), keys labelled RSAES-OAEP (STMicroelectronics), a NULL beside ECDSA
(Intel's root). This reader forgives these and nothing else, keeps the bytes that were signed as they are,
and gives the same value as the first reader. It is asked only after that one has refused.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tpm.verify.certificate import (
    ALTERNATIVE_NAME,
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    ISSUER_KEY_IDENTIFIER,
    KEY_IDENTIFIER,
    KEY_USAGE,
    PURPOSES,
    TITLE_LIMIT,
    USAGES,
    Certificate,
    printable,
)
from tpm.verify.certificate_algorithms import read_public_key, read_signature
from tpm.verify.certificate_names import read_alternative_names, read_distinguished_name
from tpm.verify.der import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    Element,
    bits,
    boolean,
    check_nested,
    elements,
    expect,
    integer,
    members,
    octets_of_bits,
    oid,
    whole,
)

_READ = frozenset(
    {
        ALTERNATIVE_NAME,
        BASIC_CONSTRAINTS,
        CERTIFICATE_POLICIES,
        ISSUER_KEY_IDENTIFIER,
        KEY_IDENTIFIER,
        KEY_USAGE,
        PURPOSES,
    }
)
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UNIQUE_IDENTIFIERS = (0x81, 0x82)
_KEY_ID, _ISSUER_SERIAL, _ISSUER_NAMES = 0x80, 0x82, 0xA1
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_TIME = re.compile(r"([0-9]{2}|[0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z", re.ASCII)
_PATH_LIMIT = 255


@dataclass(frozen=True, slots=True)
class _Extension:
    critical: bool
    value: bytes


Extensions = Mapping[str, _Extension]


def read_leniently(raw: bytes) -> Certificate:
    """The certificate in exactly these bytes; ValueError otherwise."""
    check_nested(raw)
    body, algorithm, signature = _three(whole(raw, SEQUENCE))
    fields = members(body)
    version, serial = _version(fields)
    signed_algorithm, issuer, validity, subject, key = (_next(fields) for _ in range(5))
    if signed_algorithm.raw != algorithm.raw:
        raise ValueError("its two signature algorithms differ")
    extensions = _extensions(fields, version)
    not_before, not_after = _validity(validity)
    issuer_name, subject_name = read_distinguished_name(issuer), read_distinguished_name(subject)
    is_ca, path_length = _constraints(extensions)
    names, others = _alternative_names(extensions)
    return Certificate(
        raw=raw,
        sha256=hashlib.sha256(raw).hexdigest(),
        version=version,
        serial=serial,
        title=printable(subject_name.title[:TITLE_LIMIT]),
        issuer_title=printable(issuer_name.title[:TITLE_LIMIT]),
        subject=subject_name.raw,
        issuer=issuer_name.raw,
        not_before=not_before,
        not_after=not_after,
        key=read_public_key(key),
        is_ca=is_ca,
        path_length=path_length,
        usages=_usages(extensions),
        purposes=_purposes(extensions),
        policies=_policies(extensions),
        critical=frozenset(kind for kind, one in extensions.items() if one.critical),
        subject_attributes=subject_name.attributes,
        alternative_names=names,
        other_names=others,
        key_identifier=_key_identifier(extensions),
        issuer_key_identifier=_issuer_key_identifier(extensions),
        signature=read_signature(algorithm, octets_of_bits(signature), body.raw),
    )


def _three(certificate: Element) -> tuple[Element, Element, Element]:
    found = tuple(members(certificate))
    if len(found) != 3:
        raise ValueError(f"it has {len(found)} parts, not 3")
    return found[0], found[1], found[2]


def _next(fields: Iterator[Element]) -> Element:
    for field in fields:
        return field
    raise ValueError("it ends before all of its fields")


def _version(fields: Iterator[Element]) -> tuple[int, int]:
    """Version and serial number, with which the body begins."""
    field, version = _next(fields), 1
    if field.tag == _VERSION:
        version = 1 + integer(whole(field.content, INTEGER))
        if version not in (1, 3):
            raise ValueError(f"it is of the unknown version {version}")
        field = _next(fields)
    return version, integer(field)


def _validity(element: Element) -> tuple[datetime, datetime]:
    times = tuple(members(element))
    if len(times) != 2:
        raise ValueError("its validity is not two times")
    return _time(times[0]), _time(times[1])


def _time(element: Element) -> datetime:
    """UTCTime or GeneralizedTime to the second and in UTC (RFC 5280, 4.1.2.5)."""
    found = _TIME.fullmatch(element.content.decode("ascii", "replace"))
    wanted = {_UTC_TIME: 2, _GENERALIZED_TIME: 4}.get(element.tag)
    if found is None or len(found[1]) != wanted:
        raise ValueError("a time is not written as certificates write it")
    year, *rest = (int(digits) for digits in found.groups())
    if wanted == 2:
        year += 1900 if year >= 50 else 2000
    return datetime(year, *rest, tzinfo=UTC)  # type: ignore[arg-type,misc]


def _extensions(fields: Iterator[Element], version: int) -> Extensions:
    """What follows the key: two identifiers that nobody uses, and the extensions, each once."""
    found: dict[str, _Extension] = {}
    last = 0
    for field in fields:
        if version != 3 or field.tag <= last or field.tag not in (*_UNIQUE_IDENTIFIERS, _EXTENSIONS):
            raise ValueError("its body has a field that does not belong there")
        last = field.tag
        if field.tag != _EXTENSIONS:
            continue
        for extension in members(whole(field.content, SEQUENCE)):
            kind, one = _extension(extension)
            if kind in found:
                raise ValueError(f"it has the extension {kind} twice")
            found[kind] = one
    return found


def _extension(element: Element) -> tuple[str, _Extension]:
    kind, *rest = members(element)
    # Intel writes FALSE out, which is the default.
    critical = boolean(rest.pop(0)) if rest and rest[0].tag == BOOLEAN else False
    if len(rest) != 1:
        raise ValueError("an extension has no value, or more than one")
    name, value = oid(kind), expect(rest[0], OCTET_STRING).content
    if name in _READ:
        check_nested(value)
    return name, _Extension(critical, value)


def _constraints(extensions: Extensions) -> tuple[bool, int | None]:
    if BASIC_CONSTRAINTS not in extensions:
        return False, None
    rest = list(elements(whole(extensions[BASIC_CONSTRAINTS].value, SEQUENCE).content))
    is_ca = boolean(rest.pop(0)) if rest and rest[0].tag == BOOLEAN else False
    length = integer(rest.pop(0)) if rest else None
    if rest or (length is not None and not 0 <= length <= _PATH_LIMIT):
        raise ValueError("its basic constraints are none")
    return is_ca, length


def _usages(extensions: Extensions) -> frozenset[str] | None:
    if KEY_USAGE not in extensions:
        return None
    octets, _ = bits(whole(extensions[KEY_USAGE].value, BIT_STRING))
    granted = {
        8 * place + bit for place, octet in enumerate(octets[:2]) for bit in range(8) if octet << bit & 0x80
    }
    if len(octets) > 2 or max(granted, default=0) > len(USAGES) + 1:
        raise ValueError("its key usage has bits that mean nothing")
    return frozenset(name for bit, name in enumerate(USAGES) if bit in granted)


def _purposes(extensions: Extensions) -> frozenset[str] | None:
    if PURPOSES not in extensions:
        return None
    return frozenset(oid(one) for one in members(whole(extensions[PURPOSES].value, SEQUENCE)))


def _policies(extensions: Extensions) -> frozenset[str] | None:
    if CERTIFICATE_POLICIES not in extensions:
        return None
    found = members(whole(extensions[CERTIFICATE_POLICIES].value, SEQUENCE))
    return frozenset(oid(_next(members(policy))) for policy in found)


def _alternative_names(
    extensions: Extensions,
) -> tuple[tuple[tuple[str, str], ...] | None, tuple[tuple[str, bytes], ...]]:
    if ALTERNATIVE_NAME not in extensions:
        return None, ()
    return read_alternative_names(extensions[ALTERNATIVE_NAME].value)


def _key_identifier(extensions: Extensions) -> bytes | None:
    if KEY_IDENTIFIER not in extensions:
        return None
    return whole(extensions[KEY_IDENTIFIER].value, OCTET_STRING).content


def _issuer_key_identifier(extensions: Extensions) -> bytes | None:
    if ISSUER_KEY_IDENTIFIER not in extensions:
        return None
    found = {
        one.tag: one.content for one in members(whole(extensions[ISSUER_KEY_IDENTIFIER].value, SEQUENCE))
    }
    if not found.keys() <= {_KEY_ID, _ISSUER_NAMES, _ISSUER_SERIAL}:
        raise ValueError("its authority key identifier is none")
    return found.get(_KEY_ID)
