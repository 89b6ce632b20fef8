"""What are the elements of this DER, and does each end where what holds it says?

A strict reader of the part of ITU-T X.690 that certificates need: tags of one octet, definite lengths in the
shortest form, nothing beside an element. It never recurses; whoever reads a structure names its levels. Two
rules of DER are left to the caller, because genuine certificates break them: the order of a SET OF, and that
a default value is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30
SET = 0x31
MAX_ELEMENTS = 256
"""In one constructed element; the largest genuine certificate has about twenty extensions."""

MAX_DEPTH = 16
MAX_NESTED = 4096
"""Elements of a whole certificate; the largest genuine one has about three hundred."""

_CONSTRUCTED = 0x20
_MAX_LENGTH_OCTETS = 3
_ARCS = 32
_ARC_LIMIT = 1 << 128
"""UUIDs are arcs of 128 bits (ITU-T X.667)."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag's octet, its content, and all of its bytes."""

    tag: int
    content: bytes
    raw: bytes


def read_element(raw: bytes, offset: int = 0) -> tuple[Element, int]:
    """The element at `offset` and where the next one begins; ValueError when it is none or does not fit."""
    if offset + 2 > len(raw):
        raise ValueError("an element is cut off")
    tag, size, start = raw[offset], raw[offset + 1], offset + 2
    if tag & 0x1F == 0x1F:
        raise ValueError("a tag has more than one octet")
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= _MAX_LENGTH_OCTETS:
            raise ValueError("an element has an indefinite length, or one that no certificate needs")
        size, start = int.from_bytes(raw[start : start + octets], "big"), start + octets
        if size < 0x80 or size < 1 << (8 * (octets - 1)):
            raise ValueError("a length is not in its shortest form")
    end = start + size
    if end > len(raw):
        raise ValueError("an element is longer than what holds it")
    return Element(tag, raw[start:end], raw[offset:end]), end


def whole(raw: bytes, tag: int) -> Element:
    """The one element that these bytes are."""
    element, end = read_element(raw)
    if end != len(raw):
        raise ValueError(f"{len(raw) - end} bytes follow an element that should be alone")
    return expect(element, tag)


def expect(element: Element, tag: int) -> Element:
    """The element itself, if it has this tag."""
    if element.tag != tag:
        raise ValueError(f"an element has the tag {element.tag:#04x}, not {tag:#04x}")
    return element


def elements(content: bytes) -> tuple[Element, ...]:
    """The elements that fill this content to its end."""
    found: list[Element] = []
    offset = 0
    while offset < len(content):
        if len(found) == MAX_ELEMENTS:
            raise ValueError(f"an element holds more than {MAX_ELEMENTS} others")
        element, offset = read_element(content, offset)
        found.append(element)
    return tuple(found)


def members(element: Element, tag: int = SEQUENCE) -> Iterator[Element]:
    """The elements inside one with this tag."""
    return iter(elements(expect(element, tag).content))


def check_nested(raw: bytes) -> None:
    """ValueError unless these bytes are one element, and whatever is inside it, however deep, is too.

    What primitive elements hold is not looked at.
    """
    waiting, count = [(raw, 0)], 0
    while waiting:
        content, depth = waiting.pop()
        found = elements(content)
        count += len(found)
        if depth > MAX_DEPTH or count > MAX_NESTED or (depth == 0 and len(found) != 1):
            raise ValueError("it is not one element, or is deeper or has more elements than any certificate")
        waiting += [(one.content, depth + 1) for one in found if one.tag & _CONSTRUCTED]


def oid(element: Element) -> str:
    """Dotted numbers; each in its shortest form (X.690, 8.19)."""
    content = expect(element, OBJECT_IDENTIFIER).content
    if not content or content[-1] & 0x80:
        raise ValueError("an object identifier is empty or cut off")
    arcs: list[int] = []
    value, fresh = 0, True
    for octet in content:
        if fresh and octet == 0x80:
            raise ValueError("an object identifier has a number that is not in its shortest form")
        value, fresh = value << 7 | octet & 0x7F, not octet & 0x80
        if value >= _ARC_LIMIT or len(arcs) == _ARCS:
            raise ValueError("an object identifier is longer than any that is in use")
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def integer(element: Element) -> int:
    """Two's complement in the shortest form (X.690, 8.3)."""
    content = expect(element, INTEGER).content
    # In a longer form than needed, the first nine bits are all the same.
    if not content or (len(content) > 1 and content[0] in (0, 0xFF) and not (content[0] ^ content[1]) & 0x80):
        raise ValueError("an integer is empty or not in its shortest form")
    return int.from_bytes(content, "big", signed=True)


def boolean(element: Element) -> bool:
    """0x00 or 0xFF and nothing else (X.690, 11.1)."""
    content = expect(element, BOOLEAN).content
    if content not in (b"\x00", b"\xff"):
        raise ValueError("a boolean is neither 00 nor FF")
    return content == b"\xff"


def bits(element: Element) -> tuple[bytes, int]:
    """The octets of a bit string and how many bits at their end are no part of it, which are zero."""
    content = expect(element, BIT_STRING).content
    if not content or content[0] > 7 or (len(content) == 1 and content[0]):
        raise ValueError("a bit string has no valid count of unused bits")
    unused, octets = content[0], content[1:]
    if unused and octets[-1] & ((1 << unused) - 1):
        raise ValueError("a bit string has unused bits that are not zero")
    return octets, unused


def octets_of_bits(element: Element) -> bytes:
    """A bit string that is whole octets."""
    octets, unused = bits(element)
    if unused:
        raise ValueError("a bit string does not end with an octet")
    return octets


def implicit(element: Element, tag: int) -> Element:
    """The element under the universal tag that its context-specific one stands for."""
    return Element(tag, element.content, element.raw)
