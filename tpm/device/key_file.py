"""How does a key that lives in the TPM look to other programs?

The TSS2 PRIVATE KEY format ("ASN.1 Specification for TPM 2.0 Key Files", draft-bottomley-tpm2-keys) of
tpm2-openssl, tpm2-tss-engine, tpm2-pytss and GRUB: parent, public and encrypted private part, and the
policy that guards it.
"""

import base64
import re
from dataclasses import dataclass

from tpm.device.keys import KeyBlob
from tpm.errors import DeviceError, StructureError
from tpm.structures.algorithms import TpmCc, TpmRh
from tpm.structures.pcrs import PcrSelection, read_selection

_BEGIN, _END = "-----BEGIN TSS2 PRIVATE KEY-----", "-----END TSS2 PRIVATE KEY-----"
_PEM = re.compile(f"{_BEGIN}\\s+([A-Za-z0-9+/=\\s]+?)\\s+{_END}")
_LOADABLE_KEY = bytes.fromhex("6781050a0103")  # 2.23.133.10.1.3
_BOOLEAN, _INTEGER, _OCTETS, _OID, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x30
_TAG_0, _TAG_1 = 0xA0, 0xA1  # emptyAuth and policy; in a policy's step, its command and parameters


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file says: the key, its parent's handle (a hierarchy means its P-256 primary), the
    sealed registers.
    """

    blob: KeyBlob
    parent: int
    registers: PcrSelection | None


def encode_key_file(
    blob: KeyBlob, *, parent: int = TpmRh.OWNER, registers: PcrSelection | None = None
) -> str:
    """PEM of a key with an empty password; `registers` are those that a sealed key was sealed to."""
    policy = b""
    if registers is not None:
        # TPM2_PolicyPCR with an empty digest: the registers as they are at use, which the object's policy
        # judges.
        parameters = _element(_OCTETS, b"\0\0" + registers.raw)
        step = _element(_TAG_0, _integer(TpmCc.POLICY_PCR)) + _element(_TAG_1, parameters)
        policy = _element(_TAG_1, _element(_SEQUENCE, _element(_SEQUENCE, step)))
    body = _element(_OID, _LOADABLE_KEY) + _element(_TAG_0, _element(_BOOLEAN, b"\xff")) + policy
    body += _integer(parent) + _element(_OCTETS, blob.public) + _element(_OCTETS, blob.private)
    text = base64.b64encode(_element(_SEQUENCE, body)).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([_BEGIN, *lines, _END]) + "\n"


def decode_key_file(text: str) -> KeyFile:
    """A key file as written above or by another program. DeviceError "key_file" for what this program
    cannot use.
    """
    found = _PEM.search(text)
    if found is None:
        raise _unusable("it has no TSS2 PRIVATE KEY")
    try:
        raw = base64.b64decode("".join(found[1].split()), validate=True)
        return _decode(raw)
    except (StructureError, IndexError, ValueError) as error:  # ValueError: base64 too
        raise _unusable(f"it is damaged ({error})") from error


def _decode(raw: bytes) -> KeyFile:
    body = _Elements(_Elements(raw).take(_SEQUENCE))
    kind = body.take(_OID)
    if kind != _LOADABLE_KEY:
        raise _unusable("its kind of key is not the loadable one")
    # Some programs write TRUE as 1; anything but zero is true. Absent means that there is a password.
    if not any(_Elements(body.take(_TAG_0)).take(_BOOLEAN) if body.next == _TAG_0 else b""):
        raise _unusable("the key has a password")
    registers = _read_policy(body.take(_TAG_1)) if body.next == _TAG_1 else None
    parent = int.from_bytes(body.take(_INTEGER))
    blob = KeyBlob(body.take(_OCTETS), body.take(_OCTETS))
    body.end()
    return KeyFile(blob, parent, registers)


def _read_policy(raw: bytes) -> PcrSelection:
    steps = _Elements(_Elements(raw).take(_SEQUENCE))
    step = _Elements(steps.take(_SEQUENCE))
    command = int.from_bytes(_Elements(step.take(_TAG_0)).take(_INTEGER))
    parameters = _Elements(step.take(_TAG_1)).take(_OCTETS)
    steps.end()
    if command != TpmCc.POLICY_PCR:
        raise _unusable(f"its policy begins with command {command:#x}; only PolicyPCR is known here")
    digest = int.from_bytes(parameters[:2])
    return read_selection(parameters, 2 + digest, "key file's policy")[0]


class _Elements:
    """DER elements one after another, as far as key files need it. ValueError or IndexError when they are
    not.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw, self.offset = raw, 0

    @property
    def next(self) -> int:
        return self.raw[self.offset]

    def take(self, tag: int) -> bytes:
        """The content of the next element, which must have this tag."""
        if self.next != tag:
            raise ValueError(f"tag {tag:#04x} expected, {self.next:#04x} found")
        size = self.raw[self.offset + 1]
        start = self.offset + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(self.raw[self.offset + 2 : start])
        self.offset = start + size
        if self.offset > len(self.raw):
            raise ValueError("an element is cut off")
        return self.raw[start : self.offset]

    def end(self) -> None:
        if self.offset != len(self.raw):
            raise ValueError("something follows the last element")


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _integer(value: int) -> bytes:
    # A zero byte in front of a set high bit: INTEGER is signed, handles of persistent keys are not.
    return _element(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def _unusable(why: str) -> DeviceError:
    return DeviceError("key_file", f"The key file cannot be used: {why}.")
