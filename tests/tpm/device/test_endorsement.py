"""Does the device find its endorsement key, its certificate and its chain, and answer for the key?"""

import struct
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tpm2_pytss.constants import ESYS_TR

from tpm.device import templates
from tpm.device.device import Device
from tpm.device.endorsement import policy_a, policy_b, policy_c
from tpm.device.nv import split_certificates
from tpm.device.primary import create_primary
from tpm.errors import DeviceError
from tpm.seal.credential import make_credential
from tpm.structures.algorithms import SHA256, SHA384, SHA512, Hash
from tpm.structures.public import parse_public
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import make_test_ca
from tpm.verify.endorsement import verify_endorsement
from tpm.verify.templates import EK_TEMPLATES, match_ek_template

_NOW = datetime(2026, 11, 25, tzinfo=UTC)
_PLATFORM = 0x4000000C
_NV_ATTRIBUTES = 0x42072001
_TEMPLATES = {template.name: template for template in EK_TEMPLATES}
# libtpms makes RSA keys of 2048 and 3072 bits.
_POSSIBLE = [name for name in _TEMPLATES if name != "H-7"]


def put(tpm: SoftwareTpm, index: int, content: bytes, attributes: int = _NV_ATTRIBUTES) -> None:
    """Write an NV index as a maker would."""
    public = struct.pack(">IHIHH", index, 0x000B, attributes, 0, len(content))
    tpm.execute(0x12A, (_PLATFORM,), struct.pack(">HH", 0, len(public)) + public)
    for offset in range(0, len(content), 512):
        piece = content[offset : offset + 512]
        tpm.execute(
            0x137, (_PLATFORM, index), struct.pack(">H", len(piece)) + piece + struct.pack(">H", offset)
        )


def remove(tpm: SoftwareTpm, index: int) -> None:
    tpm.execute(0x122, (_PLATFORM, index))


@pytest.mark.parametrize(("ek", "kind"), [(("p256",), "L-2"), (("rsa",), "L-1"), (("p256", "rsa"), "L-2")])
def test_the_certified_key_is_found_and_its_certificate_holds(ek: tuple[str, ...], kind: str) -> None:
    with SoftwareTpm(ek=ek) as tpm, Device(tpm.tcti) as device:
        found = device.endorsement()
        assert found.kind == kind == match_ek_template(found.public)
        assert found.certificate is not None
        verified = verify_endorsement(
            found.certificate, found.chain, roots=[tpm.ek_root], ek=found.public, now=_NOW
        )
        assert verified.model == "swtpm"


def test_without_a_certificate_there_is_the_p256_key() -> None:
    with SoftwareTpm(ek=()) as tpm, Device(tpm.tcti) as device:
        found = device.endorsement()
        assert (found.kind, found.certificate, found.chain) == ("L-2", None, ())
        assert match_ek_template(found.public) == "L-2"


def test_a_persistent_key_is_the_one_that_would_be_created(device: Device) -> None:
    # The shared machine has both keys persistent; a fresh primary of the same template must be the same key.
    for kind in ("p256", "rsa"):
        with device.ek(kind) as persistent:
            found = persistent.public
        template = templates.endorsement_key(_TEMPLATES["L-2" if kind == "p256" else "L-1"])
        from_seed = _create(device, template)
        assert from_seed == found.raw


@pytest.mark.parametrize("name", _POSSIBLE)
def test_every_template_gives_a_key_that_matches_it_and_opens_its_credential(name: str) -> None:
    with SoftwareTpm(ek=()) as tpm, Device(tpm.tcti) as device:
        found = device.endorsement(name)
        assert match_ek_template(found.public) == name
        with device.ak(device.create_ak()) as ak, device.ek(name) as ek:
            challenge = make_credential(found.public, ak.name, b"s" * 32)
            opened = device.activate(ek, ak, challenge.id_object, challenge.encrypted_secret)
            assert opened == b"s" * 32


def test_the_template_that_no_software_tpm_makes_is_well_formed() -> None:
    raw = templates.endorsement_key(_TEMPLATES["H-7"])
    area = parse_public(raw)
    assert (area.type, area.key_bits, area.auth_policy) == ("rsa", 4096, policy_b(SHA384))


@pytest.mark.parametrize("hash", [SHA256, SHA384, SHA512], ids=lambda hash: hash.name)
def test_policies_of_the_templates_are_derived_and_not_only_copied(hash: Hash) -> None:
    published = {template.policy for template in EK_TEMPLATES if template.name_alg == hash}
    assert policy_b(hash) in published
    assert published <= {policy_a(hash), policy_b(hash)}


def test_policy_c_is_the_published_one() -> None:
    assert policy_c(SHA256).hex() == "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde"
    assert policy_c(SHA384).hex() == (
        "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165"
    )


def test_a_chain_comes_out_of_nv_and_leads_to_the_root() -> None:
    ca = make_test_ca(intermediate=True)
    with SoftwareTpm(ca=ca) as tpm, Device(tpm.tcti) as device:
        found = device.endorsement()
        assert ca.intermediate is not None
        assert found.chain == (ca.intermediate.certificate.public_bytes(Encoding.DER),)
        assert found.certificate is not None
        assert verify_endorsement(found.certificate, found.chain, roots=[ca.root], ek=found.public, now=_NOW)


def test_a_chain_that_runs_over_from_one_index_into_the_next_is_whole(software_tpm: SoftwareTpm) -> None:
    ca = make_test_ca(intermediate=True)
    assert ca.intermediate is not None
    chain = [issuer.public_bytes(Encoding.DER) for issuer in (ca.intermediate.certificate, ca.root)]
    joined = b"".join(chain)
    put(software_tpm, 0x01C00100, joined[:100])
    put(software_tpm, 0x01C00101, joined[100:] + b"\xff" * 40)
    with Device(software_tpm.tcti) as device:
        assert list(device.endorsement().chain) == chain


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", bytes(300)),
        (b"", b"\xff" * 900),
        (bytes.fromhex("1001000300"), b"\xff\xff"),
        (b"\x30\x82\xff\xff", b""),
    ],
)
def test_headers_and_padding_in_nv_are_left_out(
    software_tpm: SoftwareTpm, before: bytes, after: bytes
) -> None:
    with Device(software_tpm.tcti) as device:
        plain = device.endorsement().certificate
        assert plain is not None
        remove(software_tpm, 0x01C0000A)
        put(software_tpm, 0x01C0000A, before + plain + after)
        assert device.endorsement().certificate == plain


def test_an_index_without_a_certificate_is_no_certificate(software_tpm: SoftwareTpm) -> None:
    remove(software_tpm, 0x01C0000A)
    put(software_tpm, 0x01C0000A, b"\xff" * 700)
    with Device(software_tpm.tcti) as device:
        assert device.endorsement("p256").certificate is None


def test_an_index_that_only_its_maker_may_read_says_so(software_tpm: SoftwareTpm) -> None:
    remove(software_tpm, 0x01C0000A)
    put(software_tpm, 0x01C0000A, b"\xff" * 700, attributes=0x40010001)  # PPREAD, PPWRITE, PLATFORMCREATE
    with Device(software_tpm.tcti) as device, pytest.raises(DeviceError) as caught:
        device.endorsement("p256")
    assert caught.value.reason == "nv_unreadable"


def test_the_makers_nonce_goes_into_the_key() -> None:
    nonce = bytes(range(1, 33))
    with SoftwareTpm(ek=()) as tpm, Device(tpm.tcti) as device:
        plain = device.endorsement("p256").public
        put(tpm, 0x01C0000B, nonce)
        with_nonce = device.endorsement("p256").public
        assert with_nonce.unique != plain.unique
        assert with_nonce.raw == _create(device, templates.endorsement_key(_TEMPLATES["L-2"], nonce))


def test_the_makers_own_template_is_used() -> None:
    with SoftwareTpm(ek=()) as tpm, Device(tpm.tcti) as device:
        own = bytearray(templates.endorsement_key(_TEMPLATES["L-2"]))
        own[-1] = 1
        put(tpm, 0x01C0000C, bytes(own))
        assert device.endorsement("p256").public.raw == _create(device, bytes(own))


def test_a_makers_template_that_is_none_says_so() -> None:
    with SoftwareTpm(ek=()) as tpm, Device(tpm.tcti) as device:
        put(tpm, 0x01C0000C, b"no template")
        with pytest.raises(DeviceError) as caught:
            device.endorsement("p256")
    assert caught.value.reason == "ek_template"


def test_an_unknown_kind_is_refused_by_name(device: Device) -> None:
    with pytest.raises(DeviceError, match="p256, rsa"):
        device.endorsement("dsa")


@pytest.mark.parametrize("limit", [0, 1, 2, 8])
def test_no_more_certificates_are_cut_than_the_limit(limit: int) -> None:
    one = b"\x30\x82\x01\x00" + bytes(256)
    assert split_certificates(one * 10, limit=limit) == [one] * limit


def test_a_certificate_that_is_cut_off_is_none() -> None:
    assert split_certificates(b"\x30\x82\x01\x00" + bytes(255), limit=8) == []


def _create(device: Device, template: bytes) -> bytes:
    """What a fresh primary key of this template in the endorsement hierarchy is."""
    with create_primary(device._tpm, template, ESYS_TR.ENDORSEMENT) as key:
        return key.public.raw
