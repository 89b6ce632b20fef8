"""Who is named in this certificate?

Distinguished names and subject alternative names for the second reader (RFC 5280, 4.1.2.4 and 4.2.1.6). The
attributes of a set may stand in any order: Nuvoton's genuine certificates do not sort them.
"""

from dataclasses import dataclass

from tpm.verify.certificate import Attributes
from tpm.verify.der import (
    BIT_STRING,
    OCTET_STRING,
    SEQUENCE,
    SET,
    Element,
    elements,
    expect,
    implicit,
    members,
    oid,
    whole,
)

_OTHER_NAME, _DIRECTORY_NAME, _VALUE = 0xA0, 0xA4, 0xA0
# Mail, DNS, URI, IP address and registered ID: allowed, and nothing that an EK certificate is asked for.
_PLAIN_NAMES = frozenset({0x81, 0x82, 0x86, 0x87, 0x88})
_BMP_STRING, _UNIVERSAL_STRING = 0x1E, 0x1C
_WIDE = {_BMP_STRING: "utf-16-be", _UNIVERSAL_STRING: "utf-32-be"}
# UTF8, Numeric, Printable, Teletex, IA5 and Visible strings, all read as UTF-8.
_TEXTS = frozenset({0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A})
_SHORT = {
    "2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C",
    "2.5.4.9": "STREET", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}  # fmt: skip
_ESCAPED = str.maketrans({one: f"\\{one}" for one in '\\"+,;<>'} | {"\0": "\\00"})

Value = tuple[str, str | bytes]


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """A name with its bytes; `parts` are its relative names, each a set of attributes."""

    raw: bytes
    parts: tuple[tuple[Value, ...], ...]

    @property
    def attributes(self) -> Attributes:
        """The attributes that are text, in order."""
        return tuple((kind, text) for part in self.parts for kind, text in part if isinstance(text, str))

    @property
    def title(self) -> str:
        """For people, as RFC 4514 writes it."""
        return ",".join("+".join(_written(value) for value in part) for part in reversed(self.parts))


def read_distinguished_name(element: Element) -> DistinguishedName:
    """ValueError when it is none."""
    parts = []
    for part in members(element):
        values = tuple(_attribute(one) for one in members(part, SET))
        if not values or len(set(values)) != len(values):
            raise ValueError("a relative name is empty or has an attribute twice")
        parts.append(values)
    return DistinguishedName(element.raw, tuple(parts))


def read_alternative_names(raw: bytes) -> tuple[Attributes, tuple[tuple[str, bytes], ...]]:
    """The attributes of all directoryNames; OID and DER value of all otherNames."""
    attributes: list[tuple[str, str]] = []
    others: list[tuple[str, bytes]] = []
    for name in members(whole(raw, SEQUENCE)):
        if name.tag == _DIRECTORY_NAME:
            attributes += read_distinguished_name(whole(name.content, SEQUENCE)).attributes
        elif name.tag == _OTHER_NAME:
            kind, value = _pair(implicit(name, SEQUENCE))
            (inner,) = _alone(expect(value, _VALUE))
            others.append((oid(kind), inner.raw))
        elif name.tag not in _PLAIN_NAMES:
            raise ValueError(f"an alternative name is of the unknown kind {name.tag:#04x}")
    return tuple(attributes), tuple(others)


def hardware_serial(value: bytes) -> tuple[str, bytes]:
    """Kind and serial number of a hardwareModuleName (RFC 4108, 5) in DER; ValueError when it is none."""
    kind, serial = _pair(whole(value, SEQUENCE))
    return oid(kind), expect(serial, OCTET_STRING).content


def _attribute(element: Element) -> Value:
    kind, value = _pair(element)
    if value.tag == BIT_STRING:
        return oid(kind), value.content
    if value.tag in _WIDE:
        return oid(kind), value.content.decode(_WIDE[value.tag])
    if value.tag not in _TEXTS:
        raise ValueError(f"an attribute of a name has the tag {value.tag:#04x}, which is no text")
    return oid(kind), value.content.decode("utf-8")


def _pair(element: Element) -> tuple[Element, Element]:
    found = elements(expect(element, SEQUENCE).content)
    if len(found) != 2:
        raise ValueError(f"a pair has {len(found)} elements")
    return found[0], found[1]


def _alone(element: Element) -> tuple[Element]:
    found = elements(element.content)
    if len(found) != 1:
        raise ValueError(f"{len(found)} elements stand where one belongs")
    return (found[0],)


def _written(value: Value) -> str:
    kind, text = value
    return f"{_SHORT.get(kind, kind)}={_escaped(text)}"


def _escaped(text: str | bytes) -> str:
    if isinstance(text, bytes):
        return f"#{text.hex()}"
    written = text.translate(_ESCAPED)
    if written[:1] == "#" or (written[:1] == " " and len(written) > 1):
        written = "\\" + written
    return written[:-1] + "\\ " if written[-1:] == " " else written
