"""Do other programs load the key files that we write, and do we read theirs?"""

import base64

import pytest
from asn1crypto import core
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss.constants import TPM2_ALG, TPM2_RH, TPM2_ST
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.tsskey import TSSPrivKey
from tpm2_pytss.types import TPMT_SIG_SCHEME, TPMT_TK_HASHCHECK

from tpm.device.device import Device
from tpm.device.key_file import KeyFile, decode_key_file, encode_key_file
from tpm.device.keys import KeyBlob
from tpm.errors import DeviceError
from tpm.structures.pcrs import PcrSelection
from tpm.swtpm import SoftwareTpm

_REGISTERS = PcrSelection.of("sha256", (0, 7))
_BLOB = KeyBlob(b"\x00\x03pub", b"\x00\x04priv")


class _Step(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("command", core.Integer, {"explicit": 0}),
        ("parameters", core.OctetString, {"explicit": 1}),
    ]


class _Steps(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Step


class _Key(core.Sequence):  # type: ignore[misc]
    """TPMKey of draft-bottomley-tpm2-keys, by another implementation of ASN.1."""

    _fields = [  # noqa: RUF012
        ("type", core.ObjectIdentifier),
        ("empty_auth", core.Boolean, {"explicit": 0, "optional": True}),
        ("policy", _Steps, {"explicit": 1, "optional": True}),
        ("secret", core.OctetString, {"explicit": 2, "optional": True}),
        ("parent", core.Integer),
        ("public", core.OctetString),
        ("private", core.OctetString),
    ]


def _der(text: str) -> bytes:
    return base64.b64decode("".join(text.splitlines()[1:-1]))


def _pem(der: bytes) -> str:
    body = base64.b64encode(der).decode()
    return f"-----BEGIN TSS2 PRIVATE KEY-----\n{body}\n-----END TSS2 PRIVATE KEY-----\n"


@pytest.mark.parametrize("kind", ["p256", "p384", "rsapss"])
def test_tpm2_pytss_loads_our_file_and_signs_with_it(shared_tpm: SoftwareTpm, kind: str) -> None:
    with Device(shared_tpm.tcti) as device:
        blob = device.create_key(kind)
    text = encode_key_file(blob)
    with ESAPI(shared_tpm.tcti) as esapi, TSSPrivKey.from_pem(text.encode()).load(esapi) as handle:
        hash = blob.area.scheme.hash if blob.area.scheme else None
        assert hash is not None
        ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL, digest=b"")
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        signature = esapi.sign(handle, hash.digest(b"message"), scheme, ticket)
        if kind == "p256":
            ecdsa = signature.signature.ecdsa
            value = encode_dss_signature(
                int.from_bytes(bytes(ecdsa.signatureR)), int.from_bytes(bytes(ecdsa.signatureS))
            )
            public = blob.area.public_key()
            assert isinstance(public, ec.EllipticCurvePublicKey)
            public.verify(value, b"message", ec.ECDSA(hashes.SHA256()))


def test_we_use_a_key_file_of_tpm2_pytss(shared_tpm: SoftwareTpm) -> None:
    with ESAPI(shared_tpm.tcti) as esapi:
        made = TSSPrivKey.create_ecc(esapi).to_pem().decode()
    read = decode_key_file(made)
    assert (read.parent, read.registers) == (0x40000001, None)
    with Device(shared_tpm.tcti) as device, device.key(read.blob) as key:
        assert key.public.curve == "p256"


def test_our_file_is_the_one_that_tpm2_pytss_writes(shared_tpm: SoftwareTpm) -> None:
    with Device(shared_tpm.tcti) as device:
        text = encode_key_file(device.create_key())
    assert TSSPrivKey.from_pem(text.encode()).to_pem().decode() == text


@pytest.mark.parametrize("parent", [0x40000001, 0x81010002, 0x81000001])
@pytest.mark.parametrize("registers", [None, _REGISTERS])
def test_another_implementation_of_asn1_reads_the_same(parent: int, registers: PcrSelection | None) -> None:
    read = _Key.load(_der(encode_key_file(_BLOB, parent=parent, registers=registers)), strict=True)
    assert read["type"].native == "2.23.133.10.1.3"
    assert read["empty_auth"].native is True
    assert read["parent"].native == parent
    assert (read["public"].native, read["private"].native) == (_BLOB.public, _BLOB.private)
    steps = read["policy"].native
    if registers is None:
        assert steps is None
    else:
        assert [dict(step) for step in steps] == [{"command": 0x17F, "parameters": b"\0\0" + registers.raw}]


@pytest.mark.parametrize("parent", [0x40000001, 0x81010002])
@pytest.mark.parametrize("registers", [None, _REGISTERS])
@pytest.mark.parametrize("size", [0, 100, 200, 300, 70000])
def test_what_is_written_is_read(parent: int, registers: PcrSelection | None, size: int) -> None:
    blob = KeyBlob(bytes(size), b"private")
    text = encode_key_file(blob, parent=parent, registers=registers)
    assert decode_key_file(text) == KeyFile(blob, parent, registers)
    assert decode_key_file("a comment\n" + text.replace("\n", "\r\n")) == KeyFile(blob, parent, registers)


def test_true_written_as_one_is_true() -> None:
    der = _der(encode_key_file(_BLOB)).replace(b"\x01\x01\xff", b"\x01\x01\x01")
    assert decode_key_file(_pem(der)).blob == _BLOB


def _changed(change: dict[str, object]) -> str:
    key = _Key.load(_der(encode_key_file(_BLOB, registers=_REGISTERS)))
    fields = {name: key[name] for name in ("type", "empty_auth", "policy", "parent", "public", "private")}
    fields |= change
    return _pem(_Key({name: value for name, value in fields.items() if value is not None}).dump())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type": "2.23.133.10.1.4"}, "loadable"),
        ({"type": "1.2.3"}, "loadable"),
        ({"empty_auth": None}, "password"),
        ({"empty_auth": False}, "password"),
        ({"policy": _Steps([_Step({"command": 0x16B, "parameters": b""})])}, "only PolicyPCR"),
        (
            {"policy": _Steps([_Step({"command": 0x17F, "parameters": b"\0\0" + _REGISTERS.raw})] * 2)},
            "damaged",
        ),
        ({"policy": _Steps([])}, "damaged"),
        ({"secret": b"seed"}, "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(change: dict[str, object], says: str) -> None:
    assert decode_key_file(_changed({})).registers == _REGISTERS
    with pytest.raises(DeviceError, match=says) as caught:
        decode_key_file(_changed(change))
    assert caught.value.reason == "key_file"


@pytest.mark.parametrize("text", ["", "no key", encode_key_file(_BLOB).replace("TSS2", "EC"), _pem(b"")])
def test_what_is_no_key_file_says_so(text: str) -> None:
    with pytest.raises(DeviceError):
        decode_key_file(text)


def test_every_cut_and_every_flip_is_refused_or_read_without_another_error() -> None:
    der = _der(encode_key_file(_BLOB, registers=_REGISTERS))
    for end in range(len(der)):
        with pytest.raises(DeviceError):
            decode_key_file(_pem(der[:end]))
    for offset in range(len(der)):
        for bit in range(8):
            changed = bytearray(der)
            changed[offset] ^= 1 << bit
            try:
                decode_key_file(_pem(bytes(changed)))
            except DeviceError:
                continue


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_our_own_error(raw: bytes) -> None:
    with pytest.raises(DeviceError):
        decode_key_file(_pem(raw))


@given(st.text(max_size=300))
def test_any_text_is_refused_with_our_own_error(text: str) -> None:
    with pytest.raises(DeviceError):
        decode_key_file(text)
